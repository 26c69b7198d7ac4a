import type { Socket } from 'node:net';

/** What a frame is. */
const KINDS = ['hello', 'welcome', 'refused', 'sum', 'bytes'] as const;

export type FrameKind = (typeof KINDS)[number];

export interface Frame {
  readonly kind: FrameKind;
  readonly bytes: Uint8Array;
}

/** A connection that carries frames. */
export interface Link {
  send(kind: FrameKind, bytes?: Uint8Array): void;
  /** The next frame; rejects when the connection ends, or after so many seconds (0: never). */
  receive(seconds: number): Promise<Frame>;
  close(): void;
  /** Whether the connection is gone. */
  readonly ended: boolean;
}

/** The four letters that begin every frame, its kind, and the bytes that follow. */
const MARK = Buffer.from('PNN1');
const HEADER = MARK.length + 1 + 4;

/** Errors and NCCL's identifier are far smaller: what claims more is not ours. */
const MOST_BYTES = 16 << 20;

/** Frames over a socket. It keeps the process alive only while one is waited for. */
export function createLink(socket: Socket): Link {
  const frames: Frame[] = [];
  let pending = Buffer.alloc(0);
  let ended: Error | undefined;
  let news = () => {};
  const end = (error: Error) => {
    ended ??= error;
    socket.destroy();
    news();
  };
  socket.setNoDelay(true);
  socket.unref();
  socket.on('error', () => end(new Error('has ended, or the connection to it was lost')));
  socket.on('close', () => end(new Error('has ended, or the connection to it was lost')));
  socket.on('data', (chunk) => {
    pending = Buffer.concat([pending, chunk]);
    for (;;) {
      const mark = pending.subarray(0, MARK.length);
      if (!mark.equals(MARK.subarray(0, mark.length)))
        return end(new Error('says what is not ours'));
      if (pending.length < HEADER) break;
      const kind = KINDS[pending[MARK.length] as number];
      const length = pending.readUInt32LE(MARK.length + 1);
      if (kind === undefined || length > MOST_BYTES) return end(new Error('says what is not ours'));
      if (pending.length < HEADER + length) break;
      frames.push({ kind, bytes: Uint8Array.from(pending.subarray(HEADER, HEADER + length)) });
      pending = pending.subarray(HEADER + length);
    }
    news();
  });
  return {
    send(kind, bytes = new Uint8Array()) {
      if (ended !== undefined) return;
      const header = Buffer.alloc(HEADER);
      MARK.copy(header);
      header[MARK.length] = KINDS.indexOf(kind);
      header.writeUInt32LE(bytes.length, MARK.length + 1);
      socket.write(Buffer.concat([header, bytes]));
    },
    async receive(seconds) {
      socket.ref();
      let late = false;
      const timer =
        seconds > 0 && Number.isFinite(seconds)
          ? setTimeout(() => {
              late = true;
              news();
            }, 1000 * seconds)
          : undefined;
      try {
        while (frames.length === 0) {
          if (ended !== undefined) throw ended;
          if (late) throw new Error(`has said nothing for ${seconds} s`);
          await new Promise<void>((resolve) => {
            news = resolve;
          });
        }
        return frames.shift() as Frame;
      } finally {
        clearTimeout(timer);
        socket.unref();
      }
    },
    close: () => void socket.end(),
    get ended() {
      return ended !== undefined;
    },
  };
}

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { basename } from 'node:path';

/** The fields of a package.json that a registry tells. */
export interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly dependencies?: Readonly<Record<string, string>>;
}

/** A package as it is published. */
export interface Published {
  readonly manifest: Manifest;
  /** The path of its .tgz. */
  readonly tarball: string;
}

/**
 * A registry on this machine with these packages, one version of each, and nothing else: what npm
 * asks of it beyond them is answered with 404, and listed in `refused`.
 */
export async function serveRegistry(packages: readonly Published[]) {
  const refused: string[] = [];
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url ?? '').slice(1);
    const file = packages.find(({ tarball }) => path === `-/${basename(tarball)}`);
    const found = packages.find(({ manifest }) => path === manifest.name);
    if (file) {
      response.end(readFileSync(file.tarball));
    } else if (found) {
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify(packument(found, url(server))));
    } else {
      refused.push(path);
      response.writeHead(404).end('{}');
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: url(server), refused, close: () => server.close() };
}

function url(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function packument({ manifest, tarball }: Published, registry: string) {
  const digest = createHash('sha512').update(readFileSync(tarball)).digest('base64');
  const dist = { tarball: `${registry}/-/${basename(tarball)}`, integrity: `sha512-${digest}` };
  const { name, version } = manifest;
  return {
    name,
    'dist-tags': { latest: version },
    versions: { [version]: { ...manifest, dist } },
  };
}

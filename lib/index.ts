/// <reference lib="esnext.disposable" preserve="true" />
/**
 * PANNs for Node.js: audio neural networks for tagging (Kong et al. 2020), to run and to train.
 *
 * - {@link AudioTagger} says what is heard in a file.
 * - {@link EventDetector} says from when to when.
 * - {@link createModel}, {@link loadModel}: a network by itself.
 * - {@link Trainer}, {@link evaluate}: learn from a data set of {@link fromFolder} or {@link fromCsv}.
 * - {@link FeatureExtractor}: log-mel spectrograms. {@link loadAudio}: samples from files.
 */
export type {
  AudioInfo,
  LogmelOptions,
  NativeParameter,
  Spec,
  SpecNode,
} from './addon.js';
export {
  type Audio,
  type DecodeAudioOptions,
  decodeAudio,
  probeAudio,
  resample,
} from './audio/decode.js';
export type { Samples } from './audio/int16.js';
export { loadAudio } from './audio/load.js';
export {
  type CudaDeviceStatus,
  type CudaLibraryStatus,
  type CudaProblem,
  type CudaStatus,
  cudaStatus,
} from './cuda.js';
export { type CsvOptions, fromCsv } from './data/csv.js';
export type { Clip, Dataset, PackedClip, SkippedClip } from './data/dataset.js';
export { type FolderOptions, fromFolder } from './data/folder.js';
export { fromHdf5, type Hdf5Options } from './data/hdf5.js';
export type { Batch, BatchLoader, LoaderState } from './data/loader.js';
export { type PackOptions, type PackReport, packClips } from './data/pack.js';
export { fromPacked, type PackedOptions } from './data/packed.js';
export { type ClipReader, type Decode, type DecodeRequest, rememberClips } from './data/reader.js';
export type { SamplerState } from './data/sampler.js';
export {
  type Fold,
  fewShot,
  type KFoldOptions,
  kFold,
  type Split,
  splitByFold,
  splitStratified,
} from './data/split.js';
export {
  fromStrong,
  readStrong,
  type StrongDataset,
  type StrongEvent,
  type StrongFile,
  type StrongOptions,
  type StrongWindowOptions,
  strongClips,
} from './data/strong.js';
export {
  AbortError,
  type ErrorCode,
  errorCodes,
  PannsError,
  type PannsErrorOptions,
} from './errors.js';
export { FeatureExtractor, type FeatureOptions, type Features } from './features/extractor.js';
export {
  type AudioEnd,
  type Detection,
  type DetectOptions,
  type DetectorOptions,
  type DetectStreamOptions,
  EventDetector,
} from './inference/detector.js';
export type { DeviceChoice } from './inference/device.js';
export {
  type DownloadOptions,
  type DownloadProgress,
  downloadWeights,
} from './inference/download.js';
export { type Embeddings, type EmbedOptions, embed } from './inference/embed.js';
export {
  type EventFormat,
  eventFormats,
  type FileDetection,
  formatEvents,
} from './inference/event_text.js';
export {
  createEventFinder,
  type DetectedEvent,
  type EventFinder,
  type EventRules,
  type PerClass,
} from './inference/events.js';
export type { FrameScores } from './inference/frame_scores.js';
export type { MemoryNeed } from './inference/memory.js';
export {
  type CreateModelOptions,
  createModel,
  type InferOptions,
  type MemoryOptions,
  Model,
} from './inference/model.js';
export { type LoadModelOptions, loadModel } from './inference/model_file.js';
export { type ExportOptions, exportOnnx } from './inference/onnx.js';
export type { Output } from './inference/outputs.js';
export type { AudioSource, SourceOptions } from './inference/source.js';
export type { StateDict, StateReport } from './inference/state.js';
export {
  AudioTagger,
  type Segment,
  type Tag,
  type TaggerOptions,
  type TagOptions,
  type Tags,
} from './inference/tagger.js';
export { writeNpy } from './io/npy.js';
export type { OnnxInput } from './io/onnx/model.js';
export { type PthOptions, writePth } from './io/pth/writer.js';
export {
  readSafetensors,
  type Safetensors,
  type SafetensorsArrays,
  type SafetensorsDtype,
  type SafetensorsTensor,
} from './io/safetensors.js';
export { type WritableTensor, writeSafetensors } from './io/safetensors_writer.js';
export {
  openWeights,
  type WeightsEntry,
  type WeightsFile,
  type WeightsFormat,
} from './io/weights.js';
export { audiosetLabels } from './labels.js';
export type { Detected, EmptyPrecision, FileEvent, FScore } from './metrics/event.js';
export {
  type EventBasedMetrics,
  type EventOptions,
  eventBasedMetrics,
} from './metrics/event_based.js';
export {
  type Psds,
  type PsdsInput,
  type PsdsScenario,
  psds,
  psdsScenarios,
} from './metrics/psds.js';
export {
  type ClassDetection,
  type DetectionScores,
  type SegmentBasedMetrics,
  type SegmentOptions,
  segmentBasedMetrics,
} from './metrics/segment_based.js';
export { type Block, convBlock, convBlock5x5 } from './models/blocks.js';
export { type ModelCost, modelCost } from './models/cost.js';
export { logmelFrontend, waveformFrontend, wavegramFrontend } from './models/frontends.js';
export type { NetworkOutputs } from './models/graph.js';
export { head } from './models/heads.js';
export { describeModel, modelNames } from './models/index.js';
export type { Activation, Head, ModelConfig, ModelOptions } from './models/options.js';
export {
  type PublishedFile,
  type PublishedSource,
  publishedFiles,
} from './models/pretrained.js';
export type { ModelDescription, ModelRow, Published } from './models/row.js';
export type {
  BatchNormOptions,
  Builder,
  Conv1dOptions,
  ConvOptions,
  Extent,
  Initialisation,
  LinearOptions,
  LogmelNodeOptions,
  OutputShape,
  PoolKind,
  PoolOptions,
  SpecAugmentOptions,
  StateEntry,
  Tensor,
  TensorKind,
  UnusedTensors,
} from './models/tensor.js';
export { allocate } from './native/call.js';
export type { Best } from './train/checkpoint.js';
export {
  type CrossValidateOptions,
  type CrossValidation,
  crossValidate,
  type FoldResult,
  type Spread,
} from './train/cross_validate.js';
export {
  openProcessGroup,
  ProcessGroup,
  type ProcessGroupOptions,
} from './train/distributed.js';
export {
  type ClassResult,
  type EvaluateOptions,
  type Evaluation,
  evaluate,
  longestClipSeconds,
} from './train/evaluate.js';
export {
  type EvaluateEventsOptions,
  type EventEvaluation,
  evaluateEvents,
} from './train/evaluate_events.js';
export { createFeatureStore, type FeatureStore } from './train/features.js';
export type { Freeze } from './train/freeze.js';
export { trainingMemory } from './train/memory.js';
export {
  type ModelProfile,
  type ProfiledNode,
  type ProfiledWork,
  type ProfileOptions,
  type ProfileSum,
  profileModel,
} from './train/profile.js';
export type {
  AdamOptions,
  Recipe,
  RecipeOptions,
  ScheduleChoice,
  SgdOptions,
} from './train/recipe.js';
export {
  Trainer,
  type TrainerEvents,
  type TrainerOptions,
  type TrainingStep,
} from './train/trainer.js';
export type { CheckpointOptions, TrainingOptions } from './train/training.js';
export {
  type TunedClass,
  type TunedEvents,
  type TuneEventsOptions,
  type TuningPart,
  tuneEvents,
} from './train/tune_events.js';
export { type TunedPlans, type TunePlansOptions, tunePlans } from './train/tune_plans.js';

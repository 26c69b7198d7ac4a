/**
 * PANNs for Node.js: audio neural networks for tagging (Kong et al. 2020), to run and to train.
 *
 * - {@link AudioTagger} says what is heard in a file.
 * - {@link createModel}, {@link loadModel}: a network by itself.
 * - {@link Trainer}, {@link evaluate}: learn from a data set of {@link fromFolder} or {@link fromCsv}.
 * - {@link FeatureExtractor}: log-mel spectrograms. {@link loadAudio}: samples from files.
 */
export {
  type Audio,
  type DecodeAudioOptions,
  decodeAudio,
  probeAudio,
  resample,
} from './audio/decode.js';
export { loadAudio } from './audio/load.js';
export {
  type CudaDeviceStatus,
  type CudaLibraryStatus,
  type CudaStatus,
  cudaStatus,
} from './cuda.js';
export { type CsvOptions, fromCsv } from './data/csv.js';
export type { Clip, Dataset, SkippedClip } from './data/dataset.js';
export { type FolderOptions, fromFolder } from './data/folder.js';
export type { Batch, BatchLoader, Decode, DecodeRequest, LoaderState } from './data/loader.js';
export { type Split, splitByFold, splitStratified } from './data/split.js';
export { AbortError, type ErrorCode, errorCodes, PannsError } from './errors.js';
export { FeatureExtractor, type FeatureOptions, type Features } from './features/extractor.js';
export {
  type CreateModelOptions,
  createModel,
  type DeviceChoice,
  type InferOptions,
  Model,
  type Output,
} from './inference/model.js';
export { type LoadModelOptions, loadModel } from './inference/model_file.js';
export type { StateDict } from './inference/state.js';
export {
  AudioTagger,
  type Segment,
  type Tag,
  type TaggerOptions,
  type TagOptions,
  type Tags,
} from './inference/tagger.js';
export { readSafetensors, type Safetensors, type SafetensorsTensor } from './io/safetensors.js';
export { type WritableTensor, writeSafetensors } from './io/safetensors_writer.js';
export { convBlock, convBlock5x5 } from './models/blocks.js';
export { type ModelCost, modelCost } from './models/cost.js';
export { logmelFrontend, waveformFrontend, wavegramFrontend } from './models/frontends.js';
export type { NetworkOutputs } from './models/graph.js';
export { head } from './models/heads.js';
export { describeModel, modelNames } from './models/index.js';
export type { Activation, Head, ModelConfig, ModelOptions } from './models/options.js';
export type { ModelDescription, ModelRow, Published } from './models/row.js';
export type { Builder, Extent, Tensor, TensorKind } from './models/tensor.js';
export { allocate } from './native/call.js';
export type { Best } from './train/checkpoint.js';
export {
  type ClassResult,
  type EvaluateOptions,
  type Evaluation,
  evaluate,
  longestClipSeconds,
} from './train/evaluate.js';
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

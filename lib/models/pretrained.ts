import type { ModelOptions } from './options.js';

/** Who published weights, where, and on what terms. */
export interface PublishedSource {
  /** What to cite. */
  readonly title: string;
  readonly authors: string;
  readonly licence: string;
  /** A page that describes the files. */
  readonly page: string;
  readonly doi?: string;
  /** The address of a file is this, its name, then {@link PublishedSource.suffix}. */
  readonly base: string;
  readonly suffix?: string;
}

/** A published file of weights. What is not known about it is absent. */
export interface PublishedFile {
  /** What {@link downloadWeights} takes: the model's name, or that of a variant. */
  readonly name: string;
  /** The model that it fits, one of `modelNames`. */
  readonly model: string;
  /** The options it was trained with, as far as they differ from the model's defaults. */
  readonly options?: ModelOptions;
  readonly file: string;
  readonly bytes?: number;
  /** Lower-case hexadecimal. */
  readonly md5?: string;
  /** Lower-case hexadecimal. */
  readonly sha256?: string;
  /** Mean average precision on AudioSet's evaluation set, as published. */
  readonly mAP: number;
  readonly source: PublishedSource;
}

const panns: PublishedSource = {
  title: 'PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition',
  authors: 'Q. Kong, Y. Cao, T. Iqbal, Y. Wang, W. Wang and M. D. Plumbley',
  licence: 'CC-BY-4.0',
  page: 'https://zenodo.org/records/3987831',
  doi: '10.5281/zenodo.3987831',
  base: 'https://zenodo.org/records/3987831/files/',
  suffix: '?download=1',
};

const efficientAt: PublishedSource = {
  title: 'Efficient Large-Scale Audio Tagging via Transformer-to-CNN Knowledge Distillation',
  authors: 'F. Schmid, K. Koutini and G. Widmer',
  licence: 'MIT',
  page: 'https://github.com/fschmid56/EfficientAT',
  base: 'https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/',
};

type Facts = Pick<PublishedFile, 'bytes' | 'md5' | 'sha256'>;

/** A file of PANNs, which names it by the model and the precision with three decimals. */
function ofPanns(model: string, mAP: number, facts: Facts = {}): PublishedFile {
  return {
    ...{ name: model, model, file: `${model}_mAP=${mAP.toFixed(3)}.pth` },
    ...{ ...facts, mAP, source: panns },
  };
}

/** A file of EfficientAT; variants keep the name that its authors gave them. */
function ofEfficientAt(model: string, mAP: number, facts: Facts = {}): PublishedFile {
  const file = `${model}_as_mAP_${Math.round(1000 * mAP)}.pt`;
  return { name: model, model, file, ...facts, mAP, source: efficientAt };
}

function variant(name: string, model: string, mAP: number, options?: ModelOptions): PublishedFile {
  const file = `${name}_mAP_${Math.round(1000 * mAP)}.pt`;
  const chosen = options === undefined ? {} : { options };
  return { name, model, ...chosen, file, mAP, source: efficientAt };
}

/**
 * The published weights, in the order of `modelNames`, then variants.
 *
 * Sizes and digests of PANNs are those that public programs check these files by; Zenodo itself
 * publishes the MD5. Those of mn04 were taken from the file.
 */
export const publishedFiles: readonly PublishedFile[] = [
  ofPanns('Cnn6', 0.343, { md5: 'e25e26b84585b14c7754c91e48efc9be' }),
  ofPanns('Cnn10', 0.38, { bytes: 25_237_595, md5: 'bfb1f1f9968938fa8ef4012b8471f5f6' }),
  ofPanns('Cnn14', 0.431, {
    bytes: 327_428_481,
    md5: '541141fa2ee191a88f24a3219fff024e',
    sha256: '0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31',
  }),
  ofPanns('Cnn14_emb512', 0.42),
  ofPanns('Cnn14_emb128', 0.412),
  ofPanns('Cnn14_emb32', 0.364),
  ofPanns('Cnn14_16k', 0.438, {
    bytes: 358_668_570,
    md5: '362fc5ff18f1d6ad2f6d464b45893f2c',
    sha256: 'e2ee543a27919542c2ea03eabaa70b24dcd4e6c8e05621de6b67a94e4c5058e6',
  }),
  ofPanns('Cnn14_8k', 0.416),
  ofPanns('ResNet22', 0.43, { md5: 'cf36d413096793c4e15dc752a3abd599' }),
  // biome-ignore lint/suspicious/noApproximativeNumericConstant: a published score, not log10(e)
  ofPanns('ResNet38', 0.434, { bytes: 299_615_982, md5: 'bf12f36aaabac4e0855e22d3c3239c1b' }),
  ofPanns('ResNet54', 0.429, { md5: '4f1f1406d37a29e2379916885e18c5f3' }),
  ofPanns('MobileNetV1', 0.389, { bytes: 23_639_473, md5: 'a419303e1c88aa1b9d2ac3811563d371' }),
  ofPanns('MobileNetV2', 0.383),
  ofPanns('LeeNet11', 0.266, { md5: '61ba7a7a85542fe4e97240db974eb158' }),
  ofPanns('LeeNet24', 0.336),
  ofPanns('DaiNet19', 0.295),
  ofPanns('Res1dNet31', 0.365),
  ofPanns('Res1dNet51', 0.355),
  ofPanns('Wavegram_Cnn14', 0.389, { md5: '1e3506ab640371e0b5a417b15fd66d21' }),
  ofPanns('Wavegram_Logmel_Cnn14', 0.439, {
    bytes: 328_692_198,
    md5: '17fa9ab65af3c0eb5ffbc5f65552c4e1',
  }),
  ofPanns('Cnn14_DecisionLevelMax', 0.385, {
    bytes: 327_428_481,
    md5: '70539c43c18b6a289b3199c503a82c5a',
    sha256: 'dd3b4043a87d4ec13df8082c0fcfee3fb5084151808e47e060987a95eabdd142',
  }),
  ofPanns('Cnn14_DecisionLevelAtt', 0.425, { md5: 'c8281ca2b9967244b91d557aa941e8ca' }),
  ofEfficientAt('mn04', 0.432, {
    bytes: 4_066_513,
    md5: 'd288913b10fd32c968b3d756236060a6',
    sha256: '899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c',
  }),
  ofEfficientAt('mn05', 0.443),
  ofEfficientAt('mn10', 0.471, {
    bytes: 19_708_753,
    sha256: '0bd7dc2443af498c289a2e739f02ebb515d6aa3fd3ab9db539c86123ae368a4e',
  }),
  ofEfficientAt('mn20', 0.478),
  ofEfficientAt('mn30', 0.482),
  ofEfficientAt('mn40', 0.484),
  variant('mn40_as_ext', 'mn40', 0.487),
  // Hops of 5, 15, 20 and 25 ms at 32 kHz.
  variant('mn10_as_hop_5', 'mn10', 0.475, { hopSize: 160 }),
  variant('mn10_as_hop_15', 'mn10', 0.463, { hopSize: 480 }),
  variant('mn10_as_hop_20', 'mn10', 0.456, { hopSize: 640 }),
  variant('mn10_as_hop_25', 'mn10', 0.447, { hopSize: 800 }),
  variant('mn10_as_mels_40', 'mn10', 0.453, { melBins: 40 }),
  variant('mn10_as_mels_64', 'mn10', 0.461, { melBins: 64 }),
  variant('mn10_as_mels_256', 'mn10', 0.474, { melBins: 256 }),
];

/** Where a file is published. */
export function publishedUrl({ file, source }: PublishedFile): string {
  return `${source.base}${encodeURIComponent(file)}${source.suffix ?? ''}`;
}

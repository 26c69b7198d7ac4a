#!/usr/bin/env node
// prebuildify knows node-gyp's command line only. This one takes it and builds with cmake-js,
// whose --target is a CMake target and which needs no --devdir.
import { jobs, packageProgram, show } from './steps.mjs';

const words = process.argv.slice(2);
const arch = words.filter((word) => word.startsWith('--arch='));
const debug = words.includes('--debug') ? ['--debug'] : [];
const [program, cmake] = packageProgram('cmake-js/bin/cmake-js');
// `build`, though asked to rebuild: CMake knows what is out of date.
process.exitCode = show(program, [cmake, 'build', '-p', String(jobs), ...arch, ...debug]);

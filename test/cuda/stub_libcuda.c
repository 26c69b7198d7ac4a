// A driver without a device, for machines that have none: cuDNN's run-time engines load only where
// a libcuda.so.1 is, and then compile for a GPU that is only described to them.
//
//   PANNS_STUB_DRIVER=12020   the driver's version; 13000 when unset
//   PANNS_STUB_INIT=999       what cuInit says; 100 (no device) when unset
//   PANNS_STUB_CUBINS=folder  keeps every program that is loaded, as 0.cubin, 1.cubin, ...
//
// Every other function says that there is no device. No header of CUDA's is needed: the few
// signatures below are the driver's documented ones.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kSuccess = 0, kNoDevice = 100 };

static int number(const char* name, int otherwise) {
  const char* text = getenv(name);
  return text != NULL ? atoi(text) : otherwise;
}

static int no_device(void) { return kNoDevice; }

int cuInit(unsigned flags) {
  (void)flags;
  return number("PANNS_STUB_INIT", kNoDevice);
}

int cuDriverGetVersion(int* version) {
  *version = number("PANNS_STUB_DRIVER", 13000);
  return kSuccess;
}

int cuGetErrorName(int error, const char** name) {
  *name = error == kNoDevice ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR";
  return kSuccess;
}

int cuGetErrorString(int error, const char** text) {
  (void)error;
  *text = "the stub has no device";
  return kSuccess;
}

// The length of an ELF file that lies in memory: where its last header table ends.
static uint64_t elf_length(const unsigned char* elf) {
  uint64_t segments, sections;
  uint16_t segment_size, segment_count, section_size, section_count;
  memcpy(&segments, elf + 0x20, 8);
  memcpy(&sections, elf + 0x28, 8);
  memcpy(&segment_size, elf + 0x36, 2);
  memcpy(&segment_count, elf + 0x38, 2);
  memcpy(&section_size, elf + 0x3a, 2);
  memcpy(&section_count, elf + 0x3c, 2);
  const uint64_t a = segments + (uint64_t)segment_size * segment_count;
  const uint64_t b = sections + (uint64_t)section_size * section_count;
  return a > b ? a : b;
}

static void keep(const unsigned char* program) {
  static int count = 0;
  const char* folder = getenv("PANNS_STUB_CUBINS");
  if (folder == NULL || memcmp(program,
                               "\x7f"
                               "ELF",
                               4) != 0)
    return;
  char path[4096];
  snprintf(path, sizeof(path), "%s/%d.cubin", folder, count++);
  FILE* file = fopen(path, "wb");
  if (file == NULL) return;
  fwrite(program, 1, elf_length(program), file);
  fclose(file);
}

static int loaded(void** module) {
  *module = (void*)0x1;
  return kSuccess;
}

int cuModuleLoadData(void** module, const void* program) {
  keep(program);
  return loaded(module);
}

int cuModuleLoadDataEx(void** module, const void* program, unsigned n, void* o, void** v) {
  (void)n, (void)o, (void)v;
  keep(program);
  return loaded(module);
}

int cuLibraryLoadData(void** library, const void* program, void* a, void** b, unsigned n, void* c,
                      void** d, unsigned m) {
  (void)a, (void)b, (void)n, (void)c, (void)d, (void)m;
  keep(program);
  return loaded(library);
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
  (void)module, (void)name;
  return loaded(function);
}

int cuLibraryGetKernel(void** kernel, void* library, const char* name) {
  (void)library, (void)name;
  return loaded(kernel);
}

int cuLibraryGetModule(void** module, void* library) {
  (void)library;
  return loaded(module);
}

int cuKernelGetFunction(void** function, void* kernel) {
  (void)kernel;
  return loaded(function);
}

int cuModuleUnload(void* module) {
  (void)module;
  return kSuccess;
}

int cuLibraryUnload(void* library) {
  (void)library;
  return kSuccess;
}

int cuFuncSetAttribute(void* function, int attribute, int value) {
  (void)function, (void)attribute, (void)value;
  return kSuccess;
}

int cuKernelSetAttribute(int attribute, int value, void* kernel, int device) {
  (void)attribute, (void)value, (void)kernel, (void)device;
  return kSuccess;
}

int cuFuncGetAttribute(int* value, int attribute, void* function) {
  (void)attribute, (void)function;
  *value = 0;
  return kSuccess;
}

int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* function, int threads,
                                                size_t shared) {
  (void)function, (void)threads, (void)shared;
  *blocks = 1;
  return kSuccess;
}

// cuDNN looks these up by name when it loads its engines, and reaches none without a device.
#define ABSENT(name) \
  int name(void) { return kNoDevice; }
ABSENT(cuCtxGetCurrent)
ABSENT(cuCtxGetLimit)
ABSENT(cuCtxPopCurrent)
ABSENT(cuCtxPushCurrent)
ABSENT(cuDeviceGet)
ABSENT(cuDeviceGetCount)
ABSENT(cuKernelGetAttribute)
ABSENT(cuLaunchCooperativeKernel)
ABSENT(cuLaunchKernel)
ABSENT(cuLaunchKernelEx)
ABSENT(cuLibraryLoadFromFile)
ABSENT(cuLinkAddData)
ABSENT(cuLinkComplete)
ABSENT(cuLinkCreate)
ABSENT(cuLinkDestroy)
ABSENT(cuOccupancyMaxPotentialClusterSize)
ABSENT(cuStreamGetCtx)
ABSENT(cuTensorMapEncodeIm2col)
ABSENT(cuTensorMapEncodeTiled)

// How the run-time library finds the rest of the driver.
int cuGetProcAddress_v2(const char* name, void** function, int version, uint64_t flags,
                        int* status) {
  (void)version, (void)flags;
  Dl_info own;
  void* self = NULL;
  if (dladdr((void*)&cuInit, &own) != 0) self = dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  *function = self != NULL ? dlsym(self, name) : NULL;
  if (*function == NULL) *function = (void*)&no_device;
  if (status != NULL) *status = 0;
  return kSuccess;
}

int cuGetProcAddress(const char* name, void** function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, NULL);
}

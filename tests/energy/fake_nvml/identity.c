/* Who the card is and what state it is in: names, limits, clocks, temperature, throttling, processes, MIG, Xid events. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "driver.h"

void write_uuid(int gpu, int slice, char *text, unsigned size) {
    if (slice < 0) snprintf(text, size, "GPU-fa4e0000-0000-4000-8000-%012d", gpu);
    else snprintf(text, size, "MIG-fa4e0000-0000-4000-8%03d-%012d", slice, gpu);
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *text, unsigned size) {
    setting_text(ALL_GPUS, "driver", "999.00.01", text, size);
    return OK;
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *text, unsigned size) {
    snprintf(text, size, "13.999.00.01");
    return OK;
}

static nvmlReturn_t cuda_version(int *version) {
    *version = (int)setting(ALL_GPUS, "cuda", 13000);
    return OK;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) { return cuda_version(version); }
nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) { return cuda_version(version); }

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *text, unsigned size) {
    ENTER(device, gpu);
    setting_text(gpu, "name", "Fake GPU", text, size);
    return OK;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *text, unsigned size) {
    ENTER(device, gpu);
    write_uuid(gpu, device->slice, text, size);
    return OK;
}

nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *text, unsigned size) {
    ENTER(device, gpu);
    snprintf(text, size, "165000000000%d", gpu);
    return OK;
}

nvmlReturn_t nvmlDeviceGetVbiosVersion(nvmlDevice_t device, char *text, unsigned size) {
    ENTER(device, gpu);
    snprintf(text, size, "99.00.00.00.%02d", gpu);
    return OK;
}

/* Most answers are one number that depends on nothing but the settings. */
#define GIVES_NUMBER(function, type, number) \
    nvmlReturn_t function(nvmlDevice_t device, type *answer) { \
        ENTER(device, gpu); \
        *answer = (type)(number); \
        return OK; \
    }

#define LIMIT_MW (1000 * setting(gpu, "power_limit_w", 700))

GIVES_NUMBER(nvmlDeviceGetIndex, unsigned, gpu)
GIVES_NUMBER(nvmlDeviceGetMinorNumber, unsigned, gpu)
GIVES_NUMBER(nvmlDeviceGetArchitecture, unsigned, setting(gpu, "arch", 9))
GIVES_NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, LIMIT_MW)
GIVES_NUMBER(nvmlDeviceGetPowerManagementLimit, unsigned, LIMIT_MW)
GIVES_NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, 1000 * setting(gpu, "default_limit_w", 700))
GIVES_NUMBER(nvmlDeviceGetPersistenceMode, unsigned, setting(gpu, "persistence", 1))
GIVES_NUMBER(nvmlDeviceGetComputeMode, unsigned, 0)
GIVES_NUMBER(nvmlDeviceIsMigDeviceHandle, unsigned, device->slice >= 0)
GIVES_NUMBER(nvmlDeviceGetMaxMigDeviceCount, unsigned, setting(gpu, "mig", 0) > 0 ? MAX_SLICES : 0)
GIVES_NUMBER(nvmlDeviceGetNumGpuCores, unsigned, 16896)
GIVES_NUMBER(nvmlDeviceGetBrand, unsigned, 2)
GIVES_NUMBER(nvmlDeviceGetSupportedEventTypes, unsigned long long, 8)

nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned *least, unsigned *most) {
    ENTER(device, gpu);
    *least = 200000;
    *most = (unsigned)(1000 * setting(gpu, "default_limit_w", 700));
    return OK;
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    ENTER(device, gpu);
    double arch = setting(gpu, "arch", 9);
    *major = arch >= 9 ? 9 : arch >= 7 ? 8 : arch >= 5 ? 7 : 6;
    *minor = 0;
    return OK;
}

/* A processor on the same module (module_w) is what makes a Grace Hopper. */
nvmlReturn_t nvmlDeviceGetC2cModeInfoV(nvmlDevice_t device, unsigned *enabled) {
    ENTER(device, gpu);
    if (setting(gpu, "module_w", -1) < 0) return NOT_SUPPORTED;
    *enabled = 1;
    return OK;
}

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
} pci_t;

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, pci_t *pci) {
    ENTER(device, gpu);
    memset(pci, 0, sizeof *pci);
    pci->bus = 0x10u + (unsigned)gpu;
    pci->device_id = 0x233010DE;
    snprintf(pci->bus_id_legacy, sizeof pci->bus_id_legacy, "0000:%02X:00.0", pci->bus);
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", pci->bus);
    return OK;
}

typedef struct {
    unsigned long long total, free, used;
} memory_t;

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, memory_t *memory) {
    ENTER(device, gpu);
    memory->total = 80ULL << 30;
    memory->used = 1ULL << 30;
    memory->free = memory->total - memory->used;
    return OK;
}

static nvmlReturn_t two_states(nvmlDevice_t device, const char *call, const char *key, unsigned *current, unsigned *pending) {
    int gpu;
    nvmlReturn_t fault = enter(call, device, &gpu);
    if (!fault) *current = *pending = setting(gpu, key, 0) > 0;
    return fault;
}

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned *current, unsigned *pending) {
    return two_states(device, __func__, "ecc", current, pending);
}

/* `mig` is the number of slices; 0 means that the card is whole. */
nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending) {
    return two_states(device, __func__, "mig", current, pending);
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index, nvmlDevice_t *slice) {
    ENTER(device, gpu);
    if (index >= (unsigned)setting(gpu, "mig", 0)) return NOT_FOUND;
    *slice = handle_of(gpu, (int)index);
    return OK;
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t slice, nvmlDevice_t *device) {
    ENTER(slice, gpu);
    *device = handle_of(gpu, -1);
    return OK;
}

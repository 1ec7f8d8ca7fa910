/* Initialisation, handles, and the faults that any call can meet: slow, failing, lost, uninitialised. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "driver.h"

static struct handle handles[MAX_GPUS][1 + MAX_SLICES];
static int initialised; /* how often nvmlInit was called in this process without nvmlShutdown */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int fake_gpus(void) { return (int)fmin(setting(ALL_GPUS, "gpus", 1), MAX_GPUS); }

static void sleep_s(double seconds) {
    struct timespec pause = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    nanosleep(&pause, NULL);
}

/* Faults that belong to a call rather than to a device: `slow` (seconds) and `fail` (an error code). */
static nvmlReturn_t call_faults(const char *call, int gpu) {
    double value;
    if (listed(gpu, "slow", call, &value)) sleep_s(value);
    return listed(gpu, "fail", call, &value) ? (nvmlReturn_t)value : OK;
}

nvmlDevice_t handle_of(int gpu, int slice) {
    nvmlDevice_t device = &handles[gpu][1 + slice];
    device->gpu = gpu;
    device->slice = slice;
    return device;
}

nvmlReturn_t enter(const char *call, nvmlDevice_t device, int *gpu) {
    if (!initialised) return UNINITIALIZED;
    if ((void *)device < (void *)handles || (void *)device >= (void *)(handles + MAX_GPUS)) return INVALID_ARGUMENT;
    *gpu = device->gpu;
    nvmlReturn_t fault = call_faults(call, *gpu);
    if (fault) return fault;
    return inside(setting_span(*gpu, "lost"), now_s()) ? GPU_IS_LOST : OK;
}

nvmlReturn_t enter_meter(const char *call, nvmlDevice_t device, int *gpu) {
    nvmlReturn_t fault = enter(call, device, gpu);
    if (fault) return fault;
    return device->slice >= 0 ? NOT_SUPPORTED : OK;
}

/* Without settings there is no fake card: a test that forgot its driver must not measure a phantom. */
static nvmlReturn_t start(const char *call) {
    if (!settings_present()) return DRIVER_NOT_LOADED;
    nvmlReturn_t fault = call_faults(call, ALL_GPUS);
    if (fault) return fault;
    pthread_mutex_lock(&lock);
    initialised++;
    pthread_mutex_unlock(&lock);
    return OK;
}

nvmlReturn_t nvmlInit_v2(void) { return start("nvmlInit"); }

nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    return start("nvmlInit");
}

nvmlReturn_t nvmlShutdown(void) {
    pthread_mutex_lock(&lock);
    nvmlReturn_t result = initialised ? OK : UNINITIALIZED;
    if (initialised) initialised--;
    pthread_mutex_unlock(&lock);
    return result;
}

/* For tests only: forget unbalanced initialisations of an earlier test in the same process. */
void fake_nvml_forget(void) { initialised = 0; }

const char *nvmlErrorString(nvmlReturn_t result) {
    switch (result) {
    case OK: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case TIMEOUT: return "Timeout";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *gpus) {
    if (!initialised) return UNINITIALIZED;
    *gpus = (unsigned)fake_gpus();
    return call_faults(__func__, ALL_GPUS);
}

/* A handle is given only for a card that answers. */
static nvmlReturn_t hand_out(const char *call, int gpu, int slice, nvmlDevice_t *device) {
    *device = handle_of(gpu, slice);
    return enter(call, *device, &gpu);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    if (!initialised) return UNINITIALIZED;
    return index < (unsigned)fake_gpus() ? hand_out(__func__, (int)index, -1, device) : INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    char own[96];
    if (!initialised) return UNINITIALIZED;
    for (int gpu = 0; gpu < fake_gpus(); gpu++) {
        for (int slice = -1; slice < (int)setting(gpu, "mig", 0); slice++) {
            write_uuid(gpu, slice, own, sizeof own);
            if (strcmp(own, uuid) == 0) return hand_out(__func__, gpu, slice, device);
        }
    }
    return NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device) {
    unsigned domain, bus;
    if (!initialised) return UNINITIALIZED;
    if (sscanf(bus_id, "%x:%x:", &domain, &bus) != 2) return INVALID_ARGUMENT;
    int gpu = (int)bus - 0x10;
    return domain == 0 && gpu >= 0 && gpu < fake_gpus() ? hand_out(__func__, gpu, -1, device) : NOT_FOUND;
}

/* The inside of the fake driver: settings, the power curve, and the gate every call passes. Test fixture only. */
#ifndef FAKE_NVML_DRIVER_H
#define FAKE_NVML_DRIVER_H

#include <math.h>

#define ALL_GPUS (-1)
#define MAX_GPUS 16
#define MAX_SLICES 7

/* settings.c: the variable FAKE_NVML, "key=value;key=value;1:key=value", read again at every call */
typedef struct {
    double from_s, until_s; /* [from, until); until is infinite where only a beginning was given; empty where no setting */
} span_t;

int settings_present(void);
double setting(int gpu, const char *key, double otherwise);
void setting_text(int gpu, const char *key, const char *otherwise, char *text, unsigned size);
span_t setting_span(int gpu, const char *key);
int listed(int gpu, const char *key, const char *call, double *value); /* is `call` in "call:value[@from/until],..." now? */
double now_s(void);                                                    /* seconds since the setting t0 (CLOCK_MONOTONIC) */
static inline int inside(span_t span, double t_s) { return t_s >= span.from_s && t_s < span.until_s; }

/* curve.c: the power of a GPU and its exact integral */
double joules_until(int gpu, double t_s); /* integral of the power from 0 to t */
double mean_watts(int gpu, double begin_s, double end_s);

/* gate.c: initialisation, handles, and the faults that any call can meet */
typedef int nvmlReturn_t;
typedef struct handle {
    int gpu, slice; /* slice -1: the whole GPU; otherwise a MIG slice, which has no power or energy of its own */
} *nvmlDevice_t;

enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15
};

nvmlReturn_t enter(const char *call, nvmlDevice_t device, int *gpu);       /* slow, uninitialised, failing, lost */
nvmlReturn_t enter_meter(const char *call, nvmlDevice_t device, int *gpu); /* the same, and no MIG slice */
nvmlDevice_t handle_of(int gpu, int slice);
int fake_gpus(void);

/* identity.c */
void write_uuid(int gpu, int slice, char *text, unsigned size);

#define ENTER(device, gpu) \
    int gpu; \
    nvmlReturn_t gate_ = enter(__func__, device, &gpu); \
    if (gate_) return gate_
#define ENTER_METER(device, gpu) \
    int gpu; \
    nvmlReturn_t gate_ = enter_meter(__func__, device, &gpu); \
    if (gate_) return gate_

#endif

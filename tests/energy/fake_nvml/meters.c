/* Energy counter, power sensors, the driver's sample buffer, field values: what the sensors of a card would show of its curve. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "driver.h"

typedef union {
    double real;
    unsigned natural;
    unsigned long long wide;
} value_t;

typedef struct {
    unsigned field, scope;
    long long stamp_us, latency_us;
    unsigned type; /* 1 unsigned int, 3 unsigned long long */
    nvmlReturn_t result;
    value_t value;
} field_t;

typedef struct {
    unsigned long long stamp_us;
    value_t value;
} sample_t;

enum { FIELD_TOTAL_ENERGY = 83, FIELD_POWER_AVERAGE = 185, FIELD_POWER_INSTANT = 186, FIELD_ENERGY = 191 };
enum { SCOPE_GPU = 0, SCOPE_MODULE = 1 };

/* The last moment at or before t at which something of this period and phase was renewed. */
static double last_update(double t_s, double period_s, double phase_s) {
    return period_s > 0 ? floor((t_s - phase_s) / period_s) * period_s + phase_s : t_s;
}

/* The wall clock's time at t0, in microseconds: what turns our times into the driver's stamps. */
static long long wall_origin_us(void) {
    struct timespec wall;
    double t_s = now_s();
    clock_gettime(CLOCK_REALTIME, &wall);
    return wall.tv_sec * 1000000LL + wall.tv_nsec / 1000 - (long long)llround(t_s * 1e6);
}

/* tick_s, tick_phase_s; base_j before a `reset`, zero after it; `stale` freezes it; `garbage` returns all ones. */
static unsigned long long counter_mj(int gpu) {
    double t_s = now_s();
    span_t stale = setting_span(gpu, "stale");
    if (inside(setting_span(gpu, "garbage"), t_s)) return UINT64_MAX;
    if (inside(stale, t_s)) t_s = stale.from_s;
    double tick_s = last_update(t_s, setting(gpu, "tick_s", 0.1), setting(gpu, "tick_phase_s", 0));
    double joules = setting(gpu, "base_j", 1e6) + joules_until(gpu, tick_s);
    double reset_s = setting_span(gpu, "reset").from_s;
    if (t_s >= reset_s) joules = joules_until(gpu, tick_s) - joules_until(gpu, reset_s);
    return (unsigned long long)(fmax(0, joules) * setting(gpu, "counter_gain", 1) * 1000);
}

/* What a sensor shows at its update: `zero` (a span) and `zero_every` (each n-th update) are 0 mW, `garbage` all ones. */
static unsigned shown_mw(int gpu, double update_s, double period_s, double window_s) {
    double every = setting(gpu, "zero_every", 0);
    if (inside(setting_span(gpu, "garbage"), update_s)) return UINT32_MAX;
    if (inside(setting_span(gpu, "zero"), update_s)) return 0;
    if (every > 0 && period_s > 0 && fmod(round(update_s / period_s), every) == 0) return 0;
    return (unsigned)lround(1000 * setting(gpu, "power_gain", 1) * mean_watts(gpu, update_s - window_s, update_s));
}

/* The mean over the sensor's window, at its last update. */
static unsigned sensor_mw(int gpu, double window_s) {
    double period_s = setting(gpu, "power_period_s", 0.1);
    double update_s = last_update(now_s(), period_s, setting(gpu, "power_phase_s", 0));
    return shown_mw(gpu, update_s, period_s, window_s);
}

static unsigned average_mw(int gpu) { return sensor_mw(gpu, setting(gpu, "average_window_s", 1)); }
static unsigned instant_mw(int gpu) { return sensor_mw(gpu, setting(gpu, "instant_window_s", 0.025)); }

/* Pascal and older cards have no counter. */
static int has_counter(int gpu) { return setting(gpu, "arch", 9) >= 5; }

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules) {
    ENTER_METER(device, gpu);
    if (!has_counter(gpu)) return NOT_SUPPORTED;
    *millijoules = counter_mj(gpu);
    return OK;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts) {
    ENTER_METER(device, gpu);
    *milliwatts = average_mw(gpu);
    return OK;
}

/* Scope GPU always; scope MODULE where module_w (what the processor beside the GPU draws) is set; else not supported. */
static nvmlReturn_t read_field(int gpu, field_t *field) {
    double module_w = setting(gpu, "module_w", -1), extra_w = field->scope == SCOPE_MODULE ? module_w : 0;
    if (field->scope != SCOPE_GPU && (field->scope != SCOPE_MODULE || module_w < 0)) return NOT_SUPPORTED;
    switch (field->field) {
    case FIELD_POWER_AVERAGE:
    case FIELD_POWER_INSTANT:
        field->type = 1;
        field->value.natural = field->field == FIELD_POWER_AVERAGE ? average_mw(gpu) : instant_mw(gpu);
        field->value.natural += (unsigned)(1000 * extra_w);
        return OK;
    case FIELD_TOTAL_ENERGY:
    case FIELD_ENERGY:
        if (!has_counter(gpu)) return NOT_SUPPORTED;
        field->type = 3;
        field->value.wide = counter_mj(gpu) + (unsigned long long)(1000 * extra_w * fmax(0, now_s()));
        return OK;
    default: return NOT_SUPPORTED;
    }
}

/* `fail` may name one field as "field186" or, for one scope only, "field186.1". */
static nvmlReturn_t field_fault(int gpu, const field_t *field) {
    char any_scope[40], one_scope[60];
    double code;
    snprintf(any_scope, sizeof any_scope, "field%u", field->field);
    snprintf(one_scope, sizeof one_scope, "field%u.%u", field->field, field->scope);
    return listed(gpu, "fail", any_scope, &code) || listed(gpu, "fail", one_scope, &code) ? (nvmlReturn_t)code : OK;
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, field_t *fields) {
    ENTER_METER(device, gpu);
    for (int i = 0; i < count; i++) {
        fields[i].stamp_us = wall_origin_us() + (long long)(now_s() * 1e6);
        fields[i].latency_us = 0;
        fields[i].value.wide = 0;
        fields[i].result = field_fault(gpu, &fields[i]);
        if (!fields[i].result) fields[i].result = read_field(gpu, &fields[i]);
    }
    return OK;
}

/* Total power only: ring_samples entries, one each ring_period_s, each the mean over that period; times of the wall clock. */
nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t device, unsigned kind, unsigned long long after_us, unsigned *type, unsigned *count,
                                  sample_t *samples) {
    ENTER_METER(device, gpu);
    if (kind != 0) return NOT_SUPPORTED;
    double period_s = setting(gpu, "ring_period_s", 0.02), newest_s = last_update(now_s(), period_s, 0);
    unsigned length = (unsigned)setting(gpu, "ring_samples", 120), filled = 0;
    long long origin_us = wall_origin_us();
    *type = 1;
    if (!samples) {
        *count = length;
        return OK;
    }
    for (unsigned i = 0; i < length && filled < *count; i++) {
        double t_s = newest_s - (length - 1 - i) * period_s;
        unsigned long long stamp_us = (unsigned long long)(origin_us + (long long)llround(t_s * 1e6));
        if (stamp_us <= after_us || t_s < 0) continue;
        samples[filled].stamp_us = stamp_us;
        samples[filled++].value.wide = shown_mw(gpu, t_s, period_s, period_s);
    }
    *count = filled;
    return filled ? OK : NOT_FOUND;
}

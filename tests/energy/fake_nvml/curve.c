/* The power of a fake GPU as a function of time alone, with its exact integral: every process sees the same card.
 *
 * lo_w outside [start_s, end_s); inside it one of the shapes below, between lo_w and hi_w. `steps` ("0:60,2:300") is piecewise
 * constant and ignores the rest; a test may append steps that lie in the future without changing the past.
 */
#include <stdlib.h>
#include <string.h>

#include "driver.h"

/* The integral over [0, x] of a shape that runs from 0 to 1. */
static double shape_integral(const char *shape, double x, double period, double duty) {
    if (strcmp(shape, "square") == 0) {
        double whole = floor(x / period), rest = x - whole * period;
        return (whole * duty + fmin(rest / period, duty)) * period;
    }
    if (strcmp(shape, "ramp") == 0) return x < period ? x * x / (2 * period) : x - period / 2;
    if (strcmp(shape, "sine") == 0) return (x - sin(2 * M_PI * x / period) * period / (2 * M_PI)) / 2;
    if (strcmp(shape, "exponential") == 0) return x - period * (1 - exp(-x / period));
    return x; /* constant */
}

static double steps_integral(const char *steps, double lo_w, double t_s) {
    double sum = lo_w * t_s;
    for (const char *step = steps; *step;) {
        char *rest;
        double from_s = strtod(step, &rest);
        double watts = *rest == ':' ? strtod(rest + 1, &rest) : lo_w;
        const char *next = strchr(rest, ',');
        double until_s = next ? fmin(t_s, strtod(next + 1, NULL)) : t_s;
        if (until_s > from_s) sum += (watts - lo_w) * (until_s - from_s);
        if (!next) break;
        step = next + 1;
    }
    return sum;
}

double joules_until(int gpu, double t_s) {
    char shape[16], steps[16384];
    double lo_w = setting(gpu, "lo_w", 60), hi_w = setting(gpu, "hi_w", 300);
    setting_text(gpu, "shape", "constant", shape, sizeof shape);
    if (strcmp(shape, "steps") == 0) {
        setting_text(gpu, "steps", "", steps, sizeof steps);
        return steps_integral(steps, lo_w, t_s);
    }
    double start_s = setting(gpu, "start_s", 0), end_s = fmin(t_s, setting(gpu, "end_s", INFINITY));
    if (end_s <= start_s) return lo_w * t_s;
    double period = setting(gpu, "period_s", 1), duty = setting(gpu, "duty", 0.5);
    return lo_w * t_s + (hi_w - lo_w) * shape_integral(shape, end_s - start_s, period, duty);
}

double mean_watts(int gpu, double begin_s, double end_s) {
    return (joules_until(gpu, end_s) - joules_until(gpu, begin_s)) / (end_s - begin_s);
}

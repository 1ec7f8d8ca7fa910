"""Energy one can trust: windows around work, joules with an uncertainty, a grade and a history. Torch-free; a library
of its own.

from benchmark.energy import EnergyTracer
with EnergyTracer("auto") as tracer, tracer.window("train") as window:
    work()
print(window.reading.joules, window.reading.ci95_joules, window.reading.grade)
"""

from benchmark.energy.device import Device, DeviceError, find_device, find_devices
from benchmark.energy.lock import DeviceBusy, DeviceLock
from benchmark.energy.meter import Meter
from benchmark.energy.probe import probe
from benchmark.energy.reading import Reading
from benchmark.energy.samples import Sample
from benchmark.energy.session import Options
from benchmark.energy.tracer import EnergyTracer
from benchmark.energy.window import EnergyError, Window

__all__ = [
    "Device",
    "DeviceBusy",
    "DeviceError",
    "DeviceLock",
    "EnergyError",
    "EnergyTracer",
    "Meter",
    "Options",
    "Reading",
    "Sample",
    "Window",
    "find_device",
    "find_devices",
    "probe",
]

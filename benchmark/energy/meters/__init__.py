"""What measures, and which device: NVML, RAPL, the estimate, their sensors, locks and neighbours. Knows no window."""

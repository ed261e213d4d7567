"""Random views, fades and patch windows, on the device."""

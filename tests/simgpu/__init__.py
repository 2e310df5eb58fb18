"""The simulated GPU host: an NVIDIA driver for N GPUs without one.

The kernel side is a FUSE file system that answers the driver's ioctls (kernel.py), the user side is a
libcuda, a libnvidia-ml and an nvidia-smi in C (driver/). Neither knows anything about limits.
"""

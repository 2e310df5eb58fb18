"""The simulated GPU host: an NVIDIA driver for N GPUs without one.

The kernel side is a FUSE file system that answers the driver's ioctls (kernel.py over escapes.py over
resman.py), the user side a libcuda, a libnvidia-ml and an nvidia-smi in C (driver/, built by build.py).
Neither knows anything about limits. It needs root, /dev/fuse and libfuse.

    with SimHost(folder, {"gpus": [{"memory_mib": 4096}]}) as host:     # host.py
        subprocess.run(["nvidia-smi"], env=host.environment())
        host.used(0)                                                    # bytes that the device really gave

    python -m tests.simgpu FOLDER [--config FILE]                       # the same for a shell
"""

/* One more file of the driver, so that there is something beside libcuda and NVML to bring into a container. */
extern int nvPTXCompilerSimulated(void);

int nvPTXCompilerSimulated(void)
{
    return 1;
}

"""Stand-ins for the programs of NVIDIA's container toolkit, as far as they touch a container.

They do to a container's spec and root file system what nvidia-container-toolkit 1.20 and libnvidia-container do (read
there, written anew), for the driver of a simulated GPU host. install.py puts them into a folder under their own names;
they run with the system's Python and its standard library.
"""

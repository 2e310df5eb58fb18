"""runai-docker: docker with --gpu-memory. What has nothing to do with that is docker's own, argument for argument."""

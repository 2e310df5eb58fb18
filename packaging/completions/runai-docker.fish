# runai-docker completes as docker does, with our options for run and create.
complete --command runai-docker --wraps docker
set --local ours --command runai-docker --condition '__fish_seen_subcommand_from run create'
complete $ours --exclusive --long-option gpu-memory --description 'Share of each GPU: 0.3, 30%, 3g'
complete $ours --exclusive --long-option gpu-memory-limit --description 'The most that the container may take'
complete $ours --exclusive --long-option gpu-memory-request --description 'What it is sure to get'
complete $ours --long-option dry-run --description "Print docker's command"

#compdef runai-docker
# runai-docker completes as docker does, with our options for run and create.

if (( ${words[(I)run]} || ${words[(I)create]} )) && [[ $PREFIX == -* ]]; then
    compadd -- --gpu-memory --gpu-memory-limit --gpu-memory-request --dry-run
fi
words[1]=docker
service=docker
_normal

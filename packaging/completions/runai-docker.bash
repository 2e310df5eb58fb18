# runai-docker completes as docker does, with our options before the image of run and create.

_runai_docker() {
    local current=${COMP_WORDS[COMP_CWORD]} word ours=
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $word in run | create) ours=1 ;; esac
    done
    if ! declare -F __start_docker >/dev/null && ! declare -F _docker >/dev/null; then
        if declare -F _comp_load >/dev/null; then
            _comp_load docker
        elif declare -F __load_completion >/dev/null; then
            __load_completion docker
        fi
    fi
    COMP_LINE="docker${COMP_LINE#"${COMP_WORDS[0]}"}"
    COMP_POINT=$((COMP_POINT - ${#COMP_WORDS[0]} + 6))
    COMP_WORDS[0]=docker
    if declare -F __start_docker >/dev/null; then
        __start_docker
    elif declare -F _docker >/dev/null; then
        _docker docker
    fi
    if [[ $ours && $current == -* ]]; then
        while read -r word; do
            COMPREPLY+=("$word")
        done < <(compgen -W "--gpu-memory --gpu-memory-limit --gpu-memory-request --dry-run" -- "$current")
    fi
}

complete -F _runai_docker runai-docker

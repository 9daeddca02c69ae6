# Completions of poetry for bash, made by `poetry generate`.

_poetry_words() {
    COMPREPLY=($(compgen -W "$1" -- "$cur"))
}

_poetry_list() {
    local given="${cur%"${cur##*,}"}"
    COMPREPLY=($(compgen -P "$given" -W "$1" -- "${cur##*,}"))
    compopt -o nospace 2>/dev/null
}

_poetry_files() {
    local IFS=$'\n'
    COMPREPLY=($(compgen -P "$1" -f -- "${cur#"$1"}"))
    compopt -o filenames 2>/dev/null
}

_poetry_addr() {
    if [[ $cur == unix:* ]]; then
        _poetry_files unix:
    else
        _poetry_words "unix: $1"
        [[ ${COMPREPLY[0]} == unix: ]] && compopt -o nospace 2>/dev/null
    fi
}

_poetry_keep_breaks() {
    local kept="" char i
    for ((i = 0; i < ${#cur}; i++)); do
        char="${cur:i:1}"
        [[ $COMP_WORDBREAKS == *"$char"* ]] && kept="${cur:0:i+1}"
    done
    COMPREPLY=("${COMPREPLY[@]#"$kept"}")
}

_poetry_takes_value() {
    case "$1" in
        --admin | --admin-host | --admin-mode | --admin-token | --allow | --ask | --backlog | --capacity | --client-rate | --client-timeout | --color | --connect-retry | --connect-timeout | --delay | --deny | --drain-timeout | --end-marker | --exec | --fail-ttl | --fetch-timeout | --grace | --idle-timeout | --key-fold | --listen | --log-format | --log-only | --log-sample | --log-slow | --max-clients | --max-per-address | --max-poem | --min-bytes | --num-bytes | --on-transform-failure | --output | --pick | --port | --protocol | --proxy-protocol | --refresh-ahead | --refusal | --reject | --reject-pause | --replay | --retry | --route | --routes | --script | --serve-stale | --slow | --stale-after | --store | --store-capacity | --store-name | --store-timeout | --threads | --timeout | --transform | --ttl | --ttl-for | --ttl-jitter | --upstream-conns | --upstream-queue | --upstream-rate | --via | --warm | -l | -o) return 0 ;;
    esac
    return 1
}

_poetry_complete() {
    case "$command $prev" in
        "serve -l" | "serve --listen" | "serve --port") _poetry_addr; return ;;
        "serve --protocol") _poetry_words "poem line"; return ;;
        "serve --pick") _poetry_words "random cycle"; return ;;
        "serve --script") _poetry_list "ok empty reset@ eof@ stall@ slow@ refuse"; return ;;
        "serve --log-only") _poetry_list "hit stale collapsed miss own failure unasked"; return ;;
        "serve --admin") _poetry_addr; return ;;
        "serve --admin-token") _poetry_files; return ;;
        "serve --color") _poetry_words "auto always never"; return ;;
        "serve --log-format") _poetry_words "text json"; return ;;
        "proxy -l" | "proxy --listen" | "proxy --port") _poetry_addr; return ;;
        "proxy --protocol") _poetry_words "poem line netstring"; return ;;
        "proxy --key-fold") _poetry_list "case space"; return ;;
        "proxy --serve-stale") _poetry_words "always on-error"; return ;;
        "proxy --warm") _poetry_files; return ;;
        "proxy --transform") _poetry_list "cummingsify shout rot13 number reverse"; return ;;
        "proxy --via") _poetry_addr; return ;;
        "proxy --on-transform-failure") _poetry_words "fail original"; return ;;
        "proxy --slow") _poetry_words "drop reset"; return ;;
        "proxy --routes") _poetry_files; return ;;
        "proxy --store-name") _poetry_list "cummingsify shout rot13 number reverse"; return ;;
        "proxy --log-only") _poetry_list "hit stale collapsed miss own failure unasked"; return ;;
        "proxy --admin") _poetry_addr; return ;;
        "proxy --admin-token") _poetry_files; return ;;
        "proxy --color") _poetry_words "auto always never"; return ;;
        "proxy --log-format") _poetry_words "text json"; return ;;
        "fetch -o" | "fetch --output") _poetry_files; return ;;
        "fetch --transform") _poetry_list "cummingsify shout rot13 number reverse"; return ;;
        "fetch --via") _poetry_addr; return ;;
        "fetch --color") _poetry_words "auto always never"; return ;;
        "fetch --log-format") _poetry_words "text json"; return ;;
        "transform -l" | "transform --listen" | "transform --port") _poetry_addr; return ;;
        "transform --via") _poetry_addr; return ;;
        "transform --log-only") _poetry_list "hit stale collapsed miss own failure unasked"; return ;;
        "transform --admin") _poetry_addr; return ;;
        "transform --admin-token") _poetry_files; return ;;
        "transform --color") _poetry_words "auto always never"; return ;;
        "transform --log-format") _poetry_words "text json"; return ;;
        " --color") _poetry_words "auto always never"; return ;;
        " --log-format") _poetry_words "text json"; return ;;
    esac
    _poetry_takes_value "$prev" && return

    case "$command" in
        serve)
            if [[ $cur == -* ]]; then
                _poetry_words "-l --listen --port --protocol --delay --num-bytes --pick --script --refusal --max-clients --threads --client-timeout --drain-timeout --allow --deny --max-per-address --client-rate --proxy-protocol --log-only --log-slow --log-sample --admin --admin-mode --admin-token --admin-host -q --quiet -v --verbose --color --log-format -h --help -V --version"
                return
            fi
            case $given in
                *) _poetry_files ;;
            esac
            ;;
        proxy)
            if [[ $cur == -* ]]; then
                _poetry_words "-l --listen --port --protocol --key-fold --ttl --ttl-for --ttl-jitter --grace --serve-stale --stale-after --refresh-ahead --warm --fail-ttl --whole --reject --min-bytes --max-poem --capacity --upstream-conns --upstream-queue --upstream-rate --reject-pause --half-close --end-marker --allow-empty --connect-retry --fetch-timeout --transform --via --on-transform-failure --live --backlog --replay --slow --route --routes --check --ask --store --store-capacity --store-timeout --store-name --connect-timeout --idle-timeout --refusal --max-clients --threads --client-timeout --drain-timeout --allow --deny --max-per-address --client-rate --proxy-protocol --log-only --log-slow --log-sample --admin --admin-mode --admin-token --admin-host -q --quiet -v --verbose --color --log-format -h --help -V --version"
                return
            fi
            case $given in
                *) _poetry_addr builtin ;;
            esac
            ;;
        fetch)
            if [[ $cur == -* ]]; then
                _poetry_words "-o --output --timeout --connect-timeout --idle-timeout --retry --ask --half-close --end-marker --allow-empty --connect-retry --max-poem --transform --via --json -q --quiet -v --verbose --color --log-format -h --help -V --version"
                return
            fi
            case $given in
                *) _poetry_addr ;;
            esac
            ;;
        transform)
            if [[ $cur == -* ]]; then
                _poetry_words "-l --listen --port --exec --list --via --max-poem --timeout --connect-timeout --idle-timeout --max-clients --threads --client-timeout --drain-timeout --allow --deny --max-per-address --client-rate --proxy-protocol --log-only --log-slow --log-sample --admin --admin-mode --admin-token --admin-host -q --quiet -v --verbose --color --log-format -h --help -V --version"
                return
            fi
            case $given in
                0) _poetry_list "cummingsify shout rot13 number reverse" ;;
                *) _poetry_files ;;
            esac
            ;;
        help) _poetry_words "serve proxy fetch transform help" ;;
        *) _poetry_words "serve proxy fetch transform help -q --quiet -v --verbose --color --log-format -h --help -V --version" ;;
    esac
}

_poetry() {
    local line="${COMP_LINE:0:COMP_POINT}" words cur prev command="" given=0 i
    COMPREPLY=()
    if [[ -n $line ]]; then
        read -ra words <<<"$line"
        [[ $line == *[[:space:]] ]] && words+=("")
    else
        words=("${COMP_WORDS[@]:0:COMP_CWORD+1}")
    fi
    cur="${words[${#words[@]}-1]}"
    prev="${words[${#words[@]}-2]}"

    for ((i = 1; i < ${#words[@]} - 1; i++)); do
        if [[ -z $command ]]; then
            case "${words[i]}" in
                serve | proxy | fetch | transform | help) command="${words[i]}" ;;
            esac
        elif [[ ${words[i]} != -* ]] && ! _poetry_takes_value "${words[i-1]}"; then
            ((given++))
        fi
    done
    if [[ $cur == --*=* ]]; then
        prev="${cur%%=*}"
        cur="${cur#*=}"
    fi

    _poetry_complete
    _poetry_keep_breaks
}

complete -F _poetry poetry

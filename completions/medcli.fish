# Completion of medcli in fish 3 or later. The program itself answers; paths are left to fish.
function __medcli_complete
    set -l before (commandline --current-process --tokenize --cut-at-cursor)
    set -l current (commandline --current-token --cut-at-cursor)
    set -l reply (env COMP_WORDS=(string join \n -- $before "$current" | string collect --allow-empty) \
        COMP_CWORD=(count $before) _MEDCLI_COMPLETE=complete_fish $before[1] 2>/dev/null)
    set -l mode $reply[1]
    set --erase reply[1]
    set -l value $current
    set -l start ""
    if string match --quiet -- '--*=*' $current
        set start (string replace --regex -- '^(--[^=]*=).*' '$1' $current)
        set value (string replace --regex -- '^--[^=]*=' '' $current)
    end
    for line in $reply
        printf '%s%s\n' $start $line
    end
    switch "$mode"
        case '*files*'
            for path in (__fish_complete_path "$value")
                printf '%s%s\n' $start $path
            end
        case '*dirs*'
            for path in (__fish_complete_directories "$value" "")
                printf '%s%s\n' $start $path
            end
    end
end
complete --command medcli --no-files --keep-order --arguments '(__medcli_complete)'

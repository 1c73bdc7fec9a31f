# Completion of kai for fish: kai completion fish | source

function __kai_complete
    set -l words (commandline -opc)
    # The answer is data, each record ended by a NUL: nothing of it is expanded or run.
    set -l answer (command $words[1] __complete fish $words[2..-1] (commandline -ct) 2>/dev/null </dev/null | string split0)
    switch "$answer[1]"
        case files
            __fish_complete_path (commandline -ct)
        case dirs
            __fish_complete_directories (commandline -ct)
        case '*'
            printf '%s\n' $answer[2..-1]
    end
end

complete -c kai -f -k -a '(__kai_complete)'

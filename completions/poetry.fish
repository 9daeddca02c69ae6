# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_poetry_global_optspecs
    string join \n q/quiet v/verbose color= log-format= h/help V/version
end

function __fish_poetry_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_poetry_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_poetry_using_subcommand
    set -l cmd (__fish_poetry_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c poetry -n "__fish_poetry_needs_command" -l color -d 'When to use colours on stderr' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even into a pipe'
never\t'Not at all'"
complete -c poetry -n "__fish_poetry_needs_command" -l log-format -d 'The form of the log on stderr' -r -f -a "text\t'For people'
json\t'One object a request, in the words of RFC 9211'"
complete -c poetry -n "__fish_poetry_needs_command" -s q -l quiet -d 'Tell nothing but errors'
complete -c poetry -n "__fish_poetry_needs_command" -s v -l verbose -d 'Tell more: every connection'
complete -c poetry -n "__fish_poetry_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c poetry -n "__fish_poetry_needs_command" -s V -l version -d 'Print version'
complete -c poetry -n "__fish_poetry_needs_command" -f -a "generate" -d 'Write the man pages and the shell completions into a folder'
complete -c poetry -n "__fish_poetry_needs_command" -f -a "serve" -d 'Serve poems: files, folders, or the built-in ones'
complete -c poetry -n "__fish_poetry_needs_command" -f -a "proxy" -d 'Serve another server\'s poems from a cache that fetches each at most once'
complete -c poetry -n "__fish_poetry_needs_command" -f -a "fetch" -d 'Print the poems of one or many servers'
complete -c poetry -n "__fish_poetry_needs_command" -f -a "transform" -d 'Transform a poem, or be the service that transforms them'
complete -c poetry -n "__fish_poetry_using_subcommand generate" -l color -d 'When to use colours on stderr' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even into a pipe'
never\t'Not at all'"
complete -c poetry -n "__fish_poetry_using_subcommand generate" -l log-format -d 'The form of the log on stderr' -r -f -a "text\t'For people'
json\t'One object a request, in the words of RFC 9211'"
complete -c poetry -n "__fish_poetry_using_subcommand generate" -s q -l quiet -d 'Tell nothing but errors'
complete -c poetry -n "__fish_poetry_using_subcommand generate" -s v -l verbose -d 'Tell more: every connection'
complete -c poetry -n "__fish_poetry_using_subcommand generate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c poetry -n "__fish_poetry_using_subcommand serve" -s l -l listen -l port -d 'Where to listen: [HOST:]PORT, [IPV6]:PORT or unix:PATH; port 0 picks a free one' -r
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l protocol -d 'What clients speak' -r -f -a "poem\t'The server speaks first, and only it'
line\t'A request line names the poem; an empty one lists the names'"
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l delay -d 'Wait this long between pieces of a poem: a slow server' -r
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l num-bytes -d 'The size of a piece, in bytes' -r
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l pick -d 'Which poem a client gets when there are several' -r -f -a "random\t'Any of them'
cycle\t'One after the other'"
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l script -d 'Rehearse trouble, connection by connection, the last step repeating: ok, empty, reset@N, eof@N, stall@N, slow@N, refuse' -r
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l max-clients -d 'Connections looked after at once; over it the kernel\'s backlog waits' -r
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l client-timeout -d 'How long a client may neither send what it owes nor take what it is sent' -r
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l drain-timeout -d 'How long running connections may take to finish after SIGTERM or SIGINT' -r
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l color -d 'When to use colours on stderr' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even into a pipe'
never\t'Not at all'"
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l log-format -d 'The form of the log on stderr' -r -f -a "text\t'For people'
json\t'One object a request, in the words of RFC 9211'"
complete -c poetry -n "__fish_poetry_using_subcommand serve" -s q -l quiet -d 'Tell nothing but errors'
complete -c poetry -n "__fish_poetry_using_subcommand serve" -s v -l verbose -d 'Tell more: every connection'
complete -c poetry -n "__fish_poetry_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -s l -l listen -l port -d 'Where to listen: [HOST:]PORT, [IPV6]:PORT or unix:PATH; port 0 picks a free one' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l protocol -d 'What clients and the upstream speak; with line and netstring, the request is the key and is passed on' -r -f -a "poem\t'The server speaks first, and only it'
line\t'A request line first, as in finger, whois and gopher'
netstring\t'A netstring each way: a transformation service whose work an external server does'"
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l ttl -d 'How long a poem is kept, from the end of its fetch; 0 keeps nothing and still fetches once for all who wait' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l grace -d 'How long after its ttl a poem may still be served while one refresh runs, and while refreshes fail' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l fail-ttl -d 'How long a failure is remembered and answered at once; 0 fetches afresh for the next request' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l reject -d 'Pass on but never keep a poem that matches; it counts as a failure for --fail-ttl' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l min-bytes -d 'Pass on but never keep a poem of fewer bytes; it counts as a failure for --fail-ttl' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l max-poem -d 'The longest poem that is kept; a longer one passes through, at the pace of its fastest reader' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l capacity -d 'The most that is held, kept poems and poems in flight together' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l upstream-conns -d 'How many connections to the upstream there may be at once; further fetches wait for their turn' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l fetch-timeout -d 'How long a whole fetch may take, with the wait for its turn' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l transform -d 'Transform poems before they are kept; several names are applied in order' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l via -d 'Have the transformation done by the netstring service at this address' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l on-transform-failure -d 'What clients get when the transformation fails; an original is sent on and not kept' -r -f -a "fail\t'A reset'
original\t'The poem as it was fetched'"
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l connect-timeout -d 'How long to wait for a name, and for a connection to each of its addresses' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l idle-timeout -d 'How long a server may be silent' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l max-clients -d 'Connections looked after at once; over it the kernel\'s backlog waits' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l client-timeout -d 'How long a client may neither send what it owes nor take what it is sent' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l drain-timeout -d 'How long running connections may take to finish after SIGTERM or SIGINT' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l color -d 'When to use colours on stderr' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even into a pipe'
never\t'Not at all'"
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l log-format -d 'The form of the log on stderr' -r -f -a "text\t'For people'
json\t'One object a request, in the words of RFC 9211'"
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l whole -d 'Send nothing until the poem is complete; a poem over --max-poem is then a failure'
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -s q -l quiet -d 'Tell nothing but errors'
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -s v -l verbose -d 'Tell more: every connection'
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -s o -l output -d 'Write to FILE, once everything is whole; a failure leaves an existing FILE as it was' -r -F
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l timeout -d 'How long all of it may take' -r
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l connect-timeout -d 'How long to wait for a name, and for a connection to each of its addresses' -r
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l idle-timeout -d 'How long a server may be silent' -r
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l retry -d 'Try again this often, after 1s, 2s, 4s and so on, while nothing has been printed' -r
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l ask -d 'Send this request line first (the line protocol: finger, whois, gopher)' -r
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l max-poem -d 'The longest poem that is taken; without it, any' -r
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l transform -d 'Transform the poems; several names are applied in order' -r
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l via -d 'Have the transformation done by the netstring service at this address' -r
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l color -d 'When to use colours on stderr' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even into a pipe'
never\t'Not at all'"
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l log-format -d 'The form of the log on stderr' -r -f -a "text\t'For people'
json\t'One object a request, in the words of RFC 9211'"
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l json -d 'Print one JSON object a server instead of its poem'
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -s q -l quiet -d 'Tell nothing but errors'
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -s v -l verbose -d 'Tell more: every connection'
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c poetry -n "__fish_poetry_using_subcommand transform" -s l -l listen -l port -d 'Be the transformation service at this address' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l exec -d 'Add a transformation NAME that a program does, without a shell: poem on its stdin, result on its stdout; repeatable, as in up=\'tr a-z A-Z\'' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l via -d 'Have it done by the netstring service at this address' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l max-poem -d 'The longest poem that is taken, and the most a program of --exec may make of one' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l timeout -d 'How long a service (--via) or a program (--exec) may take for a transformation' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l connect-timeout -d 'How long to wait for a name, and for a connection to each of its addresses' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l idle-timeout -d 'How long a server may be silent' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l max-clients -d 'Connections looked after at once; over it the kernel\'s backlog waits' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l client-timeout -d 'How long a client may neither send what it owes nor take what it is sent' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l drain-timeout -d 'How long running connections may take to finish after SIGTERM or SIGINT' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l color -d 'When to use colours on stderr' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even into a pipe'
never\t'Not at all'"
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l log-format -d 'The form of the log on stderr' -r -f -a "text\t'For people'
json\t'One object a request, in the words of RFC 9211'"
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l list -d 'List the transformations: the built-in ones, and what --exec adds'
complete -c poetry -n "__fish_poetry_using_subcommand transform" -s q -l quiet -d 'Tell nothing but errors'
complete -c poetry -n "__fish_poetry_using_subcommand transform" -s v -l verbose -d 'Tell more: every connection'
complete -c poetry -n "__fish_poetry_using_subcommand transform" -s h -l help -d 'Print help (see more with \'--help\')'

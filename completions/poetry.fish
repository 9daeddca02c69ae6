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
complete -c poetry -n "__fish_poetry_needs_command" -l log-format -d 'Format of the log on stderr' -r -f -a "text\t'For people'
json\t'One JSON object per request, in the terms of RFC 9211'"
complete -c poetry -n "__fish_poetry_needs_command" -s q -l quiet -d 'Print errors only'
complete -c poetry -n "__fish_poetry_needs_command" -s v -l verbose -d 'Log every connection'
complete -c poetry -n "__fish_poetry_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c poetry -n "__fish_poetry_needs_command" -s V -l version -d 'Print version'
complete -c poetry -n "__fish_poetry_needs_command" -f -a "generate" -d 'Write the man pages and the shell completions into a folder'
complete -c poetry -n "__fish_poetry_needs_command" -f -a "serve" -d 'Serve poems: files, folders, or the built-in ones'
complete -c poetry -n "__fish_poetry_needs_command" -f -a "proxy" -d 'Serve another server\'s poems from a cache; clients share each fetch'
complete -c poetry -n "__fish_poetry_needs_command" -f -a "fetch" -d 'Print the poems of one or many servers'
complete -c poetry -n "__fish_poetry_needs_command" -f -a "transform" -d 'Transform a poem, or run the transformation service'
complete -c poetry -n "__fish_poetry_using_subcommand generate" -l color -d 'When to use colours on stderr' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even into a pipe'
never\t'Not at all'"
complete -c poetry -n "__fish_poetry_using_subcommand generate" -l log-format -d 'Format of the log on stderr' -r -f -a "text\t'For people'
json\t'One JSON object per request, in the terms of RFC 9211'"
complete -c poetry -n "__fish_poetry_using_subcommand generate" -s q -l quiet -d 'Print errors only'
complete -c poetry -n "__fish_poetry_using_subcommand generate" -s v -l verbose -d 'Log every connection'
complete -c poetry -n "__fish_poetry_using_subcommand generate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c poetry -n "__fish_poetry_using_subcommand serve" -s l -l listen -l port -d 'Where to listen: [HOST:]PORT, [IPV6]:PORT or unix:PATH; port 0 picks a free one' -r
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l protocol -d 'The protocol that clients speak' -r -f -a "poem\t'The client sends nothing and is sent a poem'
line\t'The client sends a line with the name of a poem; an empty line lists the names'"
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l delay -d 'Wait this long between the pieces of a poem, to act as a slow server' -r
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l num-bytes -d 'Size of a piece in bytes' -r
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l pick -d 'Which poem a client gets if there are several' -r -f -a "random\t'Any of them'
cycle\t'One after the other'"
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l script -d 'Fail on purpose, one step per connection; the last step repeats: ok, empty, reset@N, eof@N, stall@N, slow@N, refuse' -r
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l max-clients -d 'Clients served at once; more wait in the kernel\'s backlog' -r
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l client-timeout -d 'How long to wait for a client to send its request, or to take more of its answer' -r
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l drain-timeout -d 'How long open connections may take to finish after SIGTERM or SIGINT' -r
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l color -d 'When to use colours on stderr' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even into a pipe'
never\t'Not at all'"
complete -c poetry -n "__fish_poetry_using_subcommand serve" -l log-format -d 'Format of the log on stderr' -r -f -a "text\t'For people'
json\t'One JSON object per request, in the terms of RFC 9211'"
complete -c poetry -n "__fish_poetry_using_subcommand serve" -s q -l quiet -d 'Print errors only'
complete -c poetry -n "__fish_poetry_using_subcommand serve" -s v -l verbose -d 'Log every connection'
complete -c poetry -n "__fish_poetry_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -s l -l listen -l port -d 'Where to listen: [HOST:]PORT, [IPV6]:PORT or unix:PATH; port 0 picks a free one' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l protocol -d 'The protocol of clients and upstream; with line and netstring, the request is passed on, and each request has its own cached answer' -r -f -a "poem\t'The client sends nothing and is sent a poem'
line\t'The client sends one line first, as in finger, whois and gopher'
netstring\t'The client sends a netstring and is sent one: a transformation service'"
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l ttl -d 'How long to keep a poem after its fetch has ended; with 0 nothing is kept, but clients that wait still share one fetch' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l grace -d 'How long a poem may be served after its ttl, while a refresh runs or refreshes fail' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l fail-ttl -d 'How long to keep a failure and answer with it at once; with 0 the next request starts a new fetch' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l reject -d 'Pass on but don\'t keep a poem that matches; it counts as a failure for --fail-ttl' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l min-bytes -d 'Pass on but don\'t keep a poem of fewer bytes; it counts as a failure for --fail-ttl' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l max-poem -d 'Longest poem to keep; a longer one is passed on at the pace of its fastest reader' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l capacity -d 'Memory for poems, both kept and being fetched' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l upstream-conns -d 'Connections to the upstream at once; further fetches wait for one to end' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l upstream-queue -d 'Fetches that may wait for a connection; a request beyond that fails at once' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l fetch-timeout -d 'How long a whole fetch may take, from its connection on' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l transform -d 'Transform poems before they are kept; several names are applied in order' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l via -d 'Have the netstring service at ADDR transform the poems' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l on-transform-failure -d 'What clients get if the transformation fails; an original is not kept' -r -f -a "fail\t'The connection is reset'
original\t'The poem as it was fetched'"
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l connect-timeout -d 'How long to wait for a name to resolve, and for a connection to each of its addresses' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l idle-timeout -d 'How long a server may send nothing' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l max-clients -d 'Clients served at once; more wait in the kernel\'s backlog' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l client-timeout -d 'How long to wait for a client to send its request, or to take more of its answer' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l drain-timeout -d 'How long open connections may take to finish after SIGTERM or SIGINT' -r
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l color -d 'When to use colours on stderr' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even into a pipe'
never\t'Not at all'"
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l log-format -d 'Format of the log on stderr' -r -f -a "text\t'For people'
json\t'One JSON object per request, in the terms of RFC 9211'"
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l whole -d 'Send nothing until the poem is complete; a poem longer than --max-poem is then a failure'
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -l half-close -d 'Close the sending side after each request, for upstreams that read to its end before they answer; others take that for a hang-up'
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -s q -l quiet -d 'Print errors only'
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -s v -l verbose -d 'Log every connection'
complete -c poetry -n "__fish_poetry_using_subcommand proxy" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -s o -l output -d 'Write to FILE once every poem is whole; on failure, an existing FILE stays as it was' -r -F
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l timeout -d 'How long each fetch may take, including its retries' -r
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l connect-timeout -d 'How long to wait for a name to resolve, and for a connection to each of its addresses' -r
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l idle-timeout -d 'How long a server may send nothing' -r
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l retry -d 'Retry up to N times, waiting 1s, 2s, 4s, ...; only while nothing has been printed' -r
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l ask -d 'Send this request line first (the line protocol: finger, whois, gopher)' -r
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l max-poem -d 'Longest poem to accept; by default there is no limit' -r
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l transform -d 'Transform the poems; several names are applied in order' -r
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l via -d 'Have the netstring service at ADDR transform the poems' -r
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l color -d 'When to use colours on stderr' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even into a pipe'
never\t'Not at all'"
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l log-format -d 'Format of the log on stderr' -r -f -a "text\t'For people'
json\t'One JSON object per request, in the terms of RFC 9211'"
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l half-close -d 'Close the sending side after the request line, for servers that read to its end before they answer; others take that for a hang-up'
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -l json -d 'Print one JSON object per server instead of its poem'
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -s q -l quiet -d 'Print errors only'
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -s v -l verbose -d 'Log every connection'
complete -c poetry -n "__fish_poetry_using_subcommand fetch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c poetry -n "__fish_poetry_using_subcommand transform" -s l -l listen -l port -d 'Run the transformation service at this address' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l exec -d 'Add a transformation NAME that runs a program, without a shell: the poem is its stdin, its stdout the result; repeatable; for example up=\'tr a-z A-Z\'' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l via -d 'Have the netstring service at ADDR transform the poem' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l max-poem -d 'Longest poem to accept, and longest result of a program (--exec)' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l timeout -d 'How long a service (--via) or a program (--exec) may take for each transformation' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l connect-timeout -d 'How long to wait for a name to resolve, and for a connection to each of its addresses' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l idle-timeout -d 'How long a server may send nothing' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l max-clients -d 'Clients served at once; more wait in the kernel\'s backlog' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l client-timeout -d 'How long to wait for a client to send its request, or to take more of its answer' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l drain-timeout -d 'How long open connections may take to finish after SIGTERM or SIGINT' -r
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l color -d 'When to use colours on stderr' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even into a pipe'
never\t'Not at all'"
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l log-format -d 'Format of the log on stderr' -r -f -a "text\t'For people'
json\t'One JSON object per request, in the terms of RFC 9211'"
complete -c poetry -n "__fish_poetry_using_subcommand transform" -l list -d 'List the transformations: the built-in ones and those that --exec adds'
complete -c poetry -n "__fish_poetry_using_subcommand transform" -s q -l quiet -d 'Print errors only'
complete -c poetry -n "__fish_poetry_using_subcommand transform" -s v -l verbose -d 'Log every connection'
complete -c poetry -n "__fish_poetry_using_subcommand transform" -s h -l help -d 'Print help (see more with \'--help\')'

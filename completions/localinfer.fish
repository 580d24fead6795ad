# Completion of localinfer for fish. Made by `python -m localinfer.cli.generate`; do not edit.

complete -c localinfer -f

# Whether the command is this one.
function __localinfer_in
    set -l typed (commandline -opc)
    set -e typed[1]
    test "$typed[1]" = ls; and set typed[1] list
    for i in (seq (count $argv))
        test "$typed[$i]" = "$argv[$i]"; or return 1
    end
end

function __localinfer_names
    set -l typed (commandline -opc)
    $typed[1] __complete $argv[1] 2>/dev/null
end

complete -c localinfer -n __fish_use_subcommand -l help -s h -d 'Show the help page'
complete -c localinfer -n __fish_use_subcommand -l version -d 'Print the version'
complete -c localinfer -n __fish_use_subcommand -a pull -d 'Download a model from the Hub into the shared cache.'
complete -c localinfer -n __fish_use_subcommand -a list -d 'Show the models on this machine, downloads and quantized ones alike.'
complete -c localinfer -n __fish_use_subcommand -a show -d 'Show one model: what it is, where it lies, what it needs.'
complete -c localinfer -n __fish_use_subcommand -a rm -d 'Delete models from this machine.'
complete -c localinfer -n __fish_use_subcommand -a cache -d 'Check or tidy what is stored.'
complete -c localinfer -n __fish_use_subcommand -a import -d 'Turn a GGUF file into a model of ours: weights as bf16, tokenizer and chat template with it.'
complete -c localinfer -n __fish_use_subcommand -a quantize -d 'Make a model smaller and faster; it is kept as `REF:INT4` and the like.'
complete -c localinfer -n __fish_use_subcommand -a eval -d 'Measure perplexity, and with `--against REF` the KL divergence and agreement with the original.'
complete -c localinfer -n __fish_use_subcommand -a export -d 'Write a model in the form of other programs: a GGUF file, or a GPTQ folder.'
complete -c localinfer -n __fish_use_subcommand -a run -d 'Answer one prompt, then stop.'
complete -c localinfer -n __fish_use_subcommand -a map -d 'Answer many prompts together: JSON lines in, JSON lines out, in their order.'
complete -c localinfer -n __fish_use_subcommand -a chat -d 'Talk to models in the terminal, in as many panes as fit. Every chat is kept.'
complete -c localinfer -n __fish_use_subcommand -a bench -d 'Measure tokens a second, latency, and the share of the memory\'s bandwidth.'
complete -c localinfer -n __fish_use_subcommand -a draft -d 'Small models that guess for a large one, made on this machine.'
complete -c localinfer -n __fish_use_subcommand -a doctor -d 'Show the processor, the kernel chosen and why, the memory\'s bandwidth, versions, and settings with their origin.'
complete -c localinfer -n __fish_use_subcommand -a config -d 'Show, set or forget settings. Every flag has a key of the same name.'
complete -c localinfer -n __fish_use_subcommand -a completion -d 'Print the completion script of a shell.'
complete -c localinfer -n '__localinfer_in cache; and not __fish_seen_subcommand_from verify prune' -a verify -d 'Hash every file of every model again. Exit code 7 when one is not what it should be.'
complete -c localinfer -n '__localinfer_in cache; and not __fish_seen_subcommand_from verify prune' -a prune -d 'Delete unfinished downloads, half-made models, files that no model needs, and cached keys and values.'
complete -c localinfer -n '__localinfer_in draft; and not __fish_seen_subcommand_from train list rm' -a train -d 'Distil a small drafter from a model, on this machine, from what the model itself says.'
complete -c localinfer -n '__localinfer_in draft; and not __fish_seen_subcommand_from train list rm' -a list -d 'List the drafters that were made here.'
complete -c localinfer -n '__localinfer_in draft; and not __fish_seen_subcommand_from train list rm' -a rm -d 'Delete the drafters of a model, and with `--texts` the earlier texts that are guessed from.'
complete -c localinfer -n '__localinfer_in config; and not __fish_seen_subcommand_from show set unset' -a show -d 'Show every setting that is not at its default, and where it comes from; `--json` shows all.'
complete -c localinfer -n '__localinfer_in config; and not __fish_seen_subcommand_from show set unset' -a set -d 'Remember a setting.'
complete -c localinfer -n '__localinfer_in config; and not __fish_seen_subcommand_from show set unset' -a unset -d 'Forget a setting; its default holds again. Also removes keys that are no settings.'

# pull
complete -c localinfer -n '__localinfer_in pull' -a '(__localinfer_names pullable)'
complete -c localinfer -n '__localinfer_in pull' -l revision -x -d 'Commit, branch or tag of the repository.'
complete -c localinfer -n '__localinfer_in pull' -l token -x -d 'Hub token, for gated models. [default: `hf auth login`]'
complete -c localinfer -n '__localinfer_in pull' -l offline -d 'Use only what is on this machine.'
complete -c localinfer -n '__localinfer_in pull' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in pull' -s q -l quiet -d 'No progress and no notes on standard error.'
complete -c localinfer -n '__localinfer_in pull' -s h -l help -d 'Show this message and exit.'

# list
complete -c localinfer -n '__localinfer_in list' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in list' -s q -l quiet -d 'No progress and no notes on standard error.'
complete -c localinfer -n '__localinfer_in list' -s h -l help -d 'Show this message and exit.'

# show
complete -c localinfer -n '__localinfer_in show' -a '(__localinfer_names models)'
complete -c localinfer -n '__localinfer_in show' -l template -d 'Print the model\'s chat template and nothing else.'
complete -c localinfer -n '__localinfer_in show' -l revision -x -d 'Commit, branch or tag of the repository.'
complete -c localinfer -n '__localinfer_in show' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in show' -s h -l help -d 'Show this message and exit.'

# rm
complete -c localinfer -n '__localinfer_in rm' -a '(__localinfer_names models)'
complete -c localinfer -n '__localinfer_in rm' -l dry-run -d 'Only say what would happen.'
complete -c localinfer -n '__localinfer_in rm' -s y -l yes -d 'Do not ask.'
complete -c localinfer -n '__localinfer_in rm' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in rm' -s q -l quiet -d 'No progress and no notes on standard error.'
complete -c localinfer -n '__localinfer_in rm' -s h -l help -d 'Show this message and exit.'

# cache verify
complete -c localinfer -n '__localinfer_in cache verify' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in cache verify' -s q -l quiet -d 'No progress and no notes on standard error.'
complete -c localinfer -n '__localinfer_in cache verify' -s h -l help -d 'Show this message and exit.'

# cache prune
complete -c localinfer -n '__localinfer_in cache prune' -l dry-run -d 'Only say what would happen.'
complete -c localinfer -n '__localinfer_in cache prune' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in cache prune' -s q -l quiet -d 'No progress and no notes on standard error.'
complete -c localinfer -n '__localinfer_in cache prune' -s h -l help -d 'Show this message and exit.'

# import
complete -c localinfer -n '__localinfer_in import' -F
complete -c localinfer -n '__localinfer_in import' -l name -x -d 'Keep the model under this name.'
complete -c localinfer -n '__localinfer_in import' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in import' -s q -l quiet -d 'No progress and no notes on standard error.'
complete -c localinfer -n '__localinfer_in import' -s h -l help -d 'Show this message and exit.'

# quantize
complete -c localinfer -n '__localinfer_in quantize' -a '(__localinfer_names models)'
complete -c localinfer -n '__localinfer_in quantize' -l bits -x -a '8 4 3' -d 'Bits of each weight of the body.'
complete -c localinfer -n '__localinfer_in quantize' -l group -x -a '32 64 128' -d 'Weights that share one scale. [default: 32; 64 from 4 billion weights on]'
complete -c localinfer -n '__localinfer_in quantize' -l method -x -a 'rtn imatrix awq gptq awq+gptq' -d 'How integers are chosen: `rtn` from the weights alone, all others by calibrating too. [default: gptq; rtn for 8 bits]'
complete -c localinfer -n '__localinfer_in quantize' -l calib -x -d 'Calibrate on this text, not on our own; may be repeated. `self`: on what the model says by itself.'
complete -c localinfer -n '__localinfer_in quantize' -l tokens -x -d 'Most tokens to calibrate on. [default: 32768]'
complete -c localinfer -n '__localinfer_in quantize' -l seed -x -d 'Same seed, same text. [default: 0]'
complete -c localinfer -n '__localinfer_in quantize' -l bpw -x -d 'Mix widths, from `--bits` up: this many bits a weight in the layers.'
complete -c localinfer -n '__localinfer_in quantize' -l target-size -x -d 'Mix widths, from `--bits` up: this size in all. [default: none; 1GB, 90MB]'
complete -c localinfer -n '__localinfer_in quantize' -l refine -x -a 'none kl qat' -d 'Then train it to answer more like the original: `kl` the scales, `qat` the weights too. [default: none]'
complete -c localinfer -n '__localinfer_in quantize' -l time-budget -x -d 'Take no longer than this: layers that --method has no time for are rounded to the nearest, and --refine ends. [default: none; 90s, 30m, 2h]'
complete -c localinfer -n '__localinfer_in quantize' -l resume -d 'Go on with a stopped run, and refuse other settings than it had.'
complete -c localinfer -n '__localinfer_in quantize' -l fresh -d 'Forget what a stopped run has left, and begin anew.'
complete -c localinfer -n '__localinfer_in quantize' -l name -x -d 'Keep the model under this name.'
complete -c localinfer -n '__localinfer_in quantize' -s t -l threads -x -d 'Worker threads. [default: at most one per physical core]'
complete -c localinfer -n '__localinfer_in quantize' -l no-report -d 'Do not measure what it lost.'
complete -c localinfer -n '__localinfer_in quantize' -l revision -x -d 'Commit, branch or tag of the repository.'
complete -c localinfer -n '__localinfer_in quantize' -l offline -d 'Use only what is on this machine.'
complete -c localinfer -n '__localinfer_in quantize' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in quantize' -s q -l quiet -d 'No progress and no notes on standard error.'
complete -c localinfer -n '__localinfer_in quantize' -s h -l help -d 'Show this message and exit.'

# eval
complete -c localinfer -n '__localinfer_in eval' -a '(__localinfer_names models)'
complete -c localinfer -n '__localinfer_in eval' -l against -r -a '(__localinfer_names models)' -d 'What to compare with: for `eval` the original model, for `bench` another engine, `llamacpp`.'
complete -c localinfer -n '__localinfer_in eval' -l text -r -F -d 'The text to read, UTF-8. [default: a text of our own, or of the model\'s own]'
complete -c localinfer -n '__localinfer_in eval' -l ctx -x -d 'Tokens in each chunk of the text. [default: 512]'
complete -c localinfer -n '__localinfer_in eval' -l chunks -x -d 'Read this many chunks; 0 reads all that the text has. [default: 24]'
complete -c localinfer -n '__localinfer_in eval' -l plot -r -F -d 'Draw size and divergence of all models into this PNG file; needs matplotlib.'
complete -c localinfer -n '__localinfer_in eval' -l kv-bits -x -a '16 8 4' -d 'Bits of each cached key and value. [default: 8]'
complete -c localinfer -n '__localinfer_in eval' -s t -l threads -x -d 'Worker threads. [default: at most one per physical core]'
complete -c localinfer -n '__localinfer_in eval' -l revision -x -d 'Commit, branch or tag of the repository.'
complete -c localinfer -n '__localinfer_in eval' -l offline -d 'Use only what is on this machine.'
complete -c localinfer -n '__localinfer_in eval' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in eval' -s q -l quiet -d 'No progress and no notes on standard error.'
complete -c localinfer -n '__localinfer_in eval' -s h -l help -d 'Show this message and exit.'

# export
complete -c localinfer -n '__localinfer_in export' -a '(__localinfer_names models)'
complete -c localinfer -n '__localinfer_in export' -l format -x -a 'gguf gptq' -d '`gguf` for llama.cpp, `gptq` for servers on GPUs.'
complete -c localinfer -n '__localinfer_in export' -l type -x -a 'Q8_0 Q4_0 F16' -d 'For gguf: what the layers\' weights become. [default: the smallest that changes no weight]'
complete -c localinfer -n '__localinfer_in export' -s o -l output -r -F -d 'Write it to this place.'
complete -c localinfer -n '__localinfer_in export' -l revision -x -d 'Commit, branch or tag of the repository.'
complete -c localinfer -n '__localinfer_in export' -l offline -d 'Use only what is on this machine.'
complete -c localinfer -n '__localinfer_in export' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in export' -s q -l quiet -d 'No progress and no notes on standard error.'
complete -c localinfer -n '__localinfer_in export' -s h -l help -d 'Show this message and exit.'

# run
complete -c localinfer -n '__localinfer_in run' -a '(__localinfer_names models)'
complete -c localinfer -n '__localinfer_in run' -s m -l model -r -a '(__localinfer_names models)' -d 'The model, when it is not the first argument. [default: starter]'
complete -c localinfer -n '__localinfer_in run' -s p -l prompt -x -d 'The prompt, when it is not an argument.'
complete -c localinfer -n '__localinfer_in run' -s f -l file -r -F -d 'Put this file before the prompt; may be repeated.'
complete -c localinfer -n '__localinfer_in run' -s s -l system -x -d 'The system prompt.'
complete -c localinfer -n '__localinfer_in run' -l raw -d 'Send the prompt as it is, without the model\'s chat template.'
complete -c localinfer -n '__localinfer_in run' -s n -l max-tokens -x -d 'Stop after this many new tokens. [default: as many as the context holds]'
complete -c localinfer -n '__localinfer_in run' -l temp -x -d '0 takes the likeliest token; higher is freer. [default: the model\'s own, else 0.7]'
complete -c localinfer -n '__localinfer_in run' -l top-k -x -d 'Keep the K likeliest tokens; 0 keeps all. [default: the model\'s own, else 40]'
complete -c localinfer -n '__localinfer_in run' -l top-p -x -d 'Keep the likeliest tokens that together reach this probability; 1 keeps all. [default: the model\'s own, else 0.95]'
complete -c localinfer -n '__localinfer_in run' -l min-p -x -d 'Drop tokens less likely than this share of the likeliest. [default: the model\'s own, else 0.0]'
complete -c localinfer -n '__localinfer_in run' -l repeat-penalty -x -d 'Make the last 64 tokens less likely by this factor; 1 is off. [default: the model\'s own, else 1.0]'
complete -c localinfer -n '__localinfer_in run' -l seed -x -d 'Same seed, same text. [default: 0]'
complete -c localinfer -n '__localinfer_in run' -l stop -x -d 'Stop before this text; may be repeated.'
complete -c localinfer -n '__localinfer_in run' -l on-overflow -x -a 'error shift' -d 'When the context is full: stop with exit code 8, or forget the oldest text and say so. [default: error]'
complete -c localinfer -n '__localinfer_in run' -l lossy -d 'Accept input that is not UTF-8; what cannot be read becomes U+FFFD.'
complete -c localinfer -n '__localinfer_in run' -s c -l ctx-size -x -d 'Longest conversation, in tokens. [default: the model\'s own limit, at most 8192]'
complete -c localinfer -n '__localinfer_in run' -s t -l threads -x -d 'Worker threads. [default: at most one per physical core]'
complete -c localinfer -n '__localinfer_in run' -l kv-bits -x -a '16 8 4' -d 'Bits of each cached key and value. [default: 8]'
complete -c localinfer -n '__localinfer_in run' -l backend -x -a 'auto cpu llamacpp' -d 'Which engine. `auto` is our own; `llamacpp` runs GGUF files and is never chosen by itself. [default: auto]'
complete -c localinfer -n '__localinfer_in run' -l draft -x -d 'Who guesses ahead: auto, off, suffix, lookup, early, head, or a model with the same tokenizer. The text stays the same. For `bench` several, with commas; there the default is off. [default: auto]'
complete -c localinfer -n '__localinfer_in run' -l draft-tokens -x -d 'Most tokens guessed ahead in one step. [default: 31]'
complete -c localinfer -n '__localinfer_in run' -l prefill-chunk -x -d 'Prompt tokens read in one step. [default: 256]'
complete -c localinfer -n '__localinfer_in run' -l kv-tokens -x -d 'Tokens that the KV cache holds for all texts together; each may use them all, up to its context. [default: the context for each text, for four at the most]'
complete -c localinfer -n '__localinfer_in run' -l latency-goal -x -d 'Milliseconds that a step may take while an answer is written; prompts of others are read in pieces that fit. [default: 120]'
complete -c localinfer -n '__localinfer_in run' -l revision -x -d 'Commit, branch or tag of the repository.'
complete -c localinfer -n '__localinfer_in run' -l offline -d 'Use only what is on this machine.'
complete -c localinfer -n '__localinfer_in run' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in run' -l stats -d 'Print speeds and counts on standard error at the end.'
complete -c localinfer -n '__localinfer_in run' -l show-drafts -d 'Tint each token by who guessed it, and count them at the end. Terminals only.'
complete -c localinfer -n '__localinfer_in run' -l no-remember -d 'Keep neither tokens of this text to guess from later (`localinfer draft rm --texts` deletes those of earlier ones) nor its keys and values.'
complete -c localinfer -n '__localinfer_in run' -l kv-disk -x -d 'Gigabytes of keys and values of earlier texts to keep on disk, privately, so that they need not be read anew; 0 keeps none, as does `--no-remember`. `localinfer cache prune` deletes them. [default: 4.0]'
complete -c localinfer -n '__localinfer_in run' -s q -l quiet -d 'No progress and no notes on standard error.'
complete -c localinfer -n '__localinfer_in run' -s h -l help -d 'Show this message and exit.'

# map
complete -c localinfer -n '__localinfer_in map' -a '(__localinfer_names models)'
complete -c localinfer -n '__localinfer_in map' -s o -l output -r -F -d 'Write it to this place.'
complete -c localinfer -n '__localinfer_in map' -l resume -d 'Go on with a stopped run, and refuse other settings than it had.'
complete -c localinfer -n '__localinfer_in map' -s s -l system -x -d 'The system prompt.'
complete -c localinfer -n '__localinfer_in map' -l raw -d 'Send the prompt as it is, without the model\'s chat template.'
complete -c localinfer -n '__localinfer_in map' -s n -l max-tokens -x -d 'Stop after this many new tokens. [default: as many as the context holds]'
complete -c localinfer -n '__localinfer_in map' -l temp -x -d '0 takes the likeliest token; higher is freer. [default: the model\'s own, else 0.7]'
complete -c localinfer -n '__localinfer_in map' -l top-k -x -d 'Keep the K likeliest tokens; 0 keeps all. [default: the model\'s own, else 40]'
complete -c localinfer -n '__localinfer_in map' -l top-p -x -d 'Keep the likeliest tokens that together reach this probability; 1 keeps all. [default: the model\'s own, else 0.95]'
complete -c localinfer -n '__localinfer_in map' -l min-p -x -d 'Drop tokens less likely than this share of the likeliest. [default: the model\'s own, else 0.0]'
complete -c localinfer -n '__localinfer_in map' -l repeat-penalty -x -d 'Make the last 64 tokens less likely by this factor; 1 is off. [default: the model\'s own, else 1.0]'
complete -c localinfer -n '__localinfer_in map' -l seed -x -d 'Same seed, same text. [default: 0]'
complete -c localinfer -n '__localinfer_in map' -l stop -x -d 'Stop before this text; may be repeated.'
complete -c localinfer -n '__localinfer_in map' -s np -l parallel -x -d 'Let so many sequences generate together, such as `8`; for `bench` also `2,4,8`.'
complete -c localinfer -n '__localinfer_in map' -s c -l ctx-size -x -d 'Longest conversation, in tokens. [default: the model\'s own limit, at most 8192]'
complete -c localinfer -n '__localinfer_in map' -s t -l threads -x -d 'Worker threads. [default: at most one per physical core]'
complete -c localinfer -n '__localinfer_in map' -l kv-bits -x -a '16 8 4' -d 'Bits of each cached key and value. [default: 8]'
complete -c localinfer -n '__localinfer_in map' -l backend -x -a 'auto cpu llamacpp' -d 'Which engine. `auto` is our own; `llamacpp` runs GGUF files and is never chosen by itself. [default: auto]'
complete -c localinfer -n '__localinfer_in map' -l draft -x -d 'Who guesses ahead: auto, off, suffix, lookup, early, head, or a model with the same tokenizer. The text stays the same. For `bench` several, with commas; there the default is off. [default: auto]'
complete -c localinfer -n '__localinfer_in map' -l draft-tokens -x -d 'Most tokens guessed ahead in one step. [default: 31]'
complete -c localinfer -n '__localinfer_in map' -l prefill-chunk -x -d 'Prompt tokens read in one step. [default: 256]'
complete -c localinfer -n '__localinfer_in map' -l kv-tokens -x -d 'Tokens that the KV cache holds for all texts together; each may use them all, up to its context. [default: the context for each text, for four at the most]'
complete -c localinfer -n '__localinfer_in map' -l latency-goal -x -d 'Milliseconds that a step may take while an answer is written; prompts of others are read in pieces that fit. [default: 120]'
complete -c localinfer -n '__localinfer_in map' -l revision -x -d 'Commit, branch or tag of the repository.'
complete -c localinfer -n '__localinfer_in map' -l offline -d 'Use only what is on this machine.'
complete -c localinfer -n '__localinfer_in map' -s q -l quiet -d 'No progress and no notes on standard error.'
complete -c localinfer -n '__localinfer_in map' -s h -l help -d 'Show this message and exit.'

# chat
complete -c localinfer -n '__localinfer_in chat' -a '(__localinfer_names models)'
complete -c localinfer -n '__localinfer_in chat' -s m -l model -r -a '(__localinfer_names models)' -d 'The model, when it is not the first argument. [default: starter]'
complete -c localinfer -n '__localinfer_in chat' -l continue -d 'Take up the last chat.'
complete -c localinfer -n '__localinfer_in chat' -s s -l system -x -d 'The system prompt.'
complete -c localinfer -n '__localinfer_in chat' -s n -l max-tokens -x -d 'Stop after this many new tokens. [default: as many as the context holds]'
complete -c localinfer -n '__localinfer_in chat' -l temp -x -d '0 takes the likeliest token; higher is freer. [default: the model\'s own, else 0.7]'
complete -c localinfer -n '__localinfer_in chat' -l top-k -x -d 'Keep the K likeliest tokens; 0 keeps all. [default: the model\'s own, else 40]'
complete -c localinfer -n '__localinfer_in chat' -l top-p -x -d 'Keep the likeliest tokens that together reach this probability; 1 keeps all. [default: the model\'s own, else 0.95]'
complete -c localinfer -n '__localinfer_in chat' -l min-p -x -d 'Drop tokens less likely than this share of the likeliest. [default: the model\'s own, else 0.0]'
complete -c localinfer -n '__localinfer_in chat' -l repeat-penalty -x -d 'Make the last 64 tokens less likely by this factor; 1 is off. [default: the model\'s own, else 1.0]'
complete -c localinfer -n '__localinfer_in chat' -l seed -x -d 'Same seed, same text. [default: 0]'
complete -c localinfer -n '__localinfer_in chat' -l stop -x -d 'Stop before this text; may be repeated.'
complete -c localinfer -n '__localinfer_in chat' -l on-overflow -x -a 'error shift' -d 'When the context is full: stop with exit code 8, or forget the oldest text and say so. [default: error]'
complete -c localinfer -n '__localinfer_in chat' -s c -l ctx-size -x -d 'Longest conversation, in tokens. [default: the model\'s own limit, at most 8192]'
complete -c localinfer -n '__localinfer_in chat' -s t -l threads -x -d 'Worker threads. [default: at most one per physical core]'
complete -c localinfer -n '__localinfer_in chat' -l kv-bits -x -a '16 8 4' -d 'Bits of each cached key and value. [default: 8]'
complete -c localinfer -n '__localinfer_in chat' -l backend -x -a 'auto cpu llamacpp' -d 'Which engine. `auto` is our own; `llamacpp` runs GGUF files and is never chosen by itself. [default: auto]'
complete -c localinfer -n '__localinfer_in chat' -l draft -x -d 'Who guesses ahead: auto, off, suffix, lookup, early, head, or a model with the same tokenizer. The text stays the same. For `bench` several, with commas; there the default is off. [default: auto]'
complete -c localinfer -n '__localinfer_in chat' -l draft-tokens -x -d 'Most tokens guessed ahead in one step. [default: 31]'
complete -c localinfer -n '__localinfer_in chat' -l prefill-chunk -x -d 'Prompt tokens read in one step. [default: 256]'
complete -c localinfer -n '__localinfer_in chat' -l kv-tokens -x -d 'Tokens that the KV cache holds for all texts together; each may use them all, up to its context. [default: the context for each text, for four at the most]'
complete -c localinfer -n '__localinfer_in chat' -l latency-goal -x -d 'Milliseconds that a step may take while an answer is written; prompts of others are read in pieces that fit. [default: 120]'
complete -c localinfer -n '__localinfer_in chat' -l no-remember -d 'Keep neither tokens of this text to guess from later (`localinfer draft rm --texts` deletes those of earlier ones) nor its keys and values.'
complete -c localinfer -n '__localinfer_in chat' -l kv-disk -x -d 'Gigabytes of keys and values of earlier texts to keep on disk, privately, so that they need not be read anew; 0 keeps none, as does `--no-remember`. `localinfer cache prune` deletes them. [default: 4.0]'
complete -c localinfer -n '__localinfer_in chat' -l revision -x -d 'Commit, branch or tag of the repository.'
complete -c localinfer -n '__localinfer_in chat' -l offline -d 'Use only what is on this machine.'
complete -c localinfer -n '__localinfer_in chat' -l theme -x -d 'Colours: `calm`, `calm-light`, or one of Textual\'s, such as `nord`. [default: calm]'
complete -c localinfer -n '__localinfer_in chat' -s h -l help -d 'Show this message and exit.'

# bench
complete -c localinfer -n '__localinfer_in bench' -a '(__localinfer_names models)'
complete -c localinfer -n '__localinfer_in bench' -s m -l model -r -a '(__localinfer_names models)' -d 'The model, when it is not the first argument. [default: starter]'
complete -c localinfer -n '__localinfer_in bench' -l random -x -d 'Measure random weights of a known shape, such as `qwen2-1.5b` or `qwen2-1.5b:INT3`. Kept as `random/SHAPE`.'
complete -c localinfer -n '__localinfer_in bench' -l group -x -a '32 64 128' -d 'Weights that share one scale. [default: 32; 64 from 4 billion weights on]'
complete -c localinfer -n '__localinfer_in bench' -l head-bits -x -a '8 4 3' -d 'Bits of embedding and head of random weights. [default: 8]'
complete -c localinfer -n '__localinfer_in bench' -l test -x -d 'What to measure, named as in llama-bench; may be repeated. [default: pp256 and tg128]'
complete -c localinfer -n '__localinfer_in bench' -s np -l parallel -x -d 'Let so many sequences generate together, such as `8`; for `bench` also `2,4,8`.'
complete -c localinfer -n '__localinfer_in bench' -l rows -x -d 'Also time steps of so many sequences together, such as `1,2,4,8`.'
complete -c localinfer -n '__localinfer_in bench' -l workload -x -a 'mixed' -d 'Answer many requests of mixed lengths instead, joining at any step, in fixed groups, and one by one.'
complete -c localinfer -n '__localinfer_in bench' -l tasks -x -d 'Answer real prompts instead: code-edit, summary, retrieval, chat, new-code, or all.'
complete -c localinfer -n '__localinfer_in bench' -l prompts -x -d 'Answer those of a file: a line each like {"task": "…", "prompt": "…"}.'
complete -c localinfer -n '__localinfer_in bench' -s n -l max-tokens -x -d 'Stop after this many new tokens. [default: as many as the context holds]'
complete -c localinfer -n '__localinfer_in bench' -l reps -x -d 'Rounds of each test. [default: 5]'
complete -c localinfer -n '__localinfer_in bench' -l against -r -a '(__localinfer_names models)' -d 'What to compare with: for `eval` the original model, for `bench` another engine, `llamacpp`.'
complete -c localinfer -n '__localinfer_in bench' -l against-file -r -F -d 'The GGUF file that the other engine runs.'
complete -c localinfer -n '__localinfer_in bench' -l compare -x -d 'Tell what changed since this earlier `--json` report.'
complete -c localinfer -n '__localinfer_in bench' -l max-drop -x -d 'With --compare: fail when a ratio to the other engine fell by more than this share.'
complete -c localinfer -n '__localinfer_in bench' -l seed -x -d 'Same seed, same text. [default: 0]'
complete -c localinfer -n '__localinfer_in bench' -s c -l ctx-size -x -d 'Longest conversation, in tokens. [default: the model\'s own limit, at most 8192]'
complete -c localinfer -n '__localinfer_in bench' -s t -l threads -x -d 'Worker threads. [default: at most one per physical core]'
complete -c localinfer -n '__localinfer_in bench' -l kv-bits -x -a '16 8 4' -d 'Bits of each cached key and value. [default: 8]'
complete -c localinfer -n '__localinfer_in bench' -l backend -x -a 'auto cpu llamacpp' -d 'Which engine. `auto` is our own; `llamacpp` runs GGUF files and is never chosen by itself. [default: auto]'
complete -c localinfer -n '__localinfer_in bench' -l draft -x -d 'Who guesses ahead: auto, off, suffix, lookup, early, head, or a model with the same tokenizer. The text stays the same. For `bench` several, with commas; there the default is off. [default: auto]'
complete -c localinfer -n '__localinfer_in bench' -l draft-tokens -x -d 'Most tokens guessed ahead in one step. [default: 31]'
complete -c localinfer -n '__localinfer_in bench' -l prefill-chunk -x -d 'Prompt tokens read in one step. [default: 256]'
complete -c localinfer -n '__localinfer_in bench' -l kv-tokens -x -d 'Tokens that the KV cache holds for all texts together; each may use them all, up to its context. [default: the context for each text, for four at the most]'
complete -c localinfer -n '__localinfer_in bench' -l latency-goal -x -d 'Milliseconds that a step may take while an answer is written; prompts of others are read in pieces that fit. [default: 120]'
complete -c localinfer -n '__localinfer_in bench' -l revision -x -d 'Commit, branch or tag of the repository.'
complete -c localinfer -n '__localinfer_in bench' -l offline -d 'Use only what is on this machine.'
complete -c localinfer -n '__localinfer_in bench' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in bench' -s q -l quiet -d 'No progress and no notes on standard error.'
complete -c localinfer -n '__localinfer_in bench' -s h -l help -d 'Show this message and exit.'

# draft train
complete -c localinfer -n '__localinfer_in draft train' -l minutes -x -d 'Time for all of it: letting the model speak, reading that, and learning. [default: 10.0]'
complete -c localinfer -n '__localinfer_in draft train' -l text -r -F -d 'The text to read, UTF-8. [default: a text of our own, or of the model\'s own]'
complete -c localinfer -n '__localinfer_in draft train' -l kind -x -a 'head early' -d 'What to make: a head on the model\'s last layer, or an exit after its first third. [default: head]'
complete -c localinfer -n '__localinfer_in draft train' -l seed -x -d 'Same seed, same text. [default: 0]'
complete -c localinfer -n '__localinfer_in draft train' -s t -l threads -x -d 'Worker threads. [default: at most one per physical core]'
complete -c localinfer -n '__localinfer_in draft train' -l offline -d 'Use only what is on this machine.'
complete -c localinfer -n '__localinfer_in draft train' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in draft train' -s q -l quiet -d 'No progress and no notes on standard error.'
complete -c localinfer -n '__localinfer_in draft train' -s h -l help -d 'Show this message and exit.'

# draft list
complete -c localinfer -n '__localinfer_in draft list' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in draft list' -s q -l quiet -d 'No progress and no notes on standard error.'
complete -c localinfer -n '__localinfer_in draft list' -s h -l help -d 'Show this message and exit.'

# draft rm
complete -c localinfer -n '__localinfer_in draft rm' -l texts -d 'Delete the earlier texts that are kept to guess from, too.'
complete -c localinfer -n '__localinfer_in draft rm' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in draft rm' -s q -l quiet -d 'No progress and no notes on standard error.'
complete -c localinfer -n '__localinfer_in draft rm' -s h -l help -d 'Show this message and exit.'

# doctor
complete -c localinfer -n '__localinfer_in doctor' -l recalibrate -d 'Forget the step times of all models; each is measured anew when it is next loaded.'
complete -c localinfer -n '__localinfer_in doctor' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in doctor' -s q -l quiet -d 'No progress and no notes on standard error.'
complete -c localinfer -n '__localinfer_in doctor' -s h -l help -d 'Show this message and exit.'

# config show
complete -c localinfer -n '__localinfer_in config show' -l json -d 'Print JSON on standard output.'
complete -c localinfer -n '__localinfer_in config show' -s h -l help -d 'Show this message and exit.'

# config set
complete -c localinfer -n '__localinfer_in config set' -a 'model prompt file system raw lossy revision ctx-size threads kv-bits backend draft minutes kind texts show-drafts no-remember draft-tokens kv-disk kv-tokens latency-goal prefill-chunk on-overflow max-tokens temp top-k top-p min-p repeat-penalty seed stop bits group method calib tokens no-report bpw target-size refine time-budget resume fresh name format type output token offline json quiet stats yes recalibrate dry-run template continue theme test rows workload tasks prompts reps against against-file random head-bits text ctx chunks plot parallel compare max-drop'
complete -c localinfer -n '__localinfer_in config set' -s h -l help -d 'Show this message and exit.'

# config unset
complete -c localinfer -n '__localinfer_in config unset' -a 'model prompt file system raw lossy revision ctx-size threads kv-bits backend draft minutes kind texts show-drafts no-remember draft-tokens kv-disk kv-tokens latency-goal prefill-chunk on-overflow max-tokens temp top-k top-p min-p repeat-penalty seed stop bits group method calib tokens no-report bpw target-size refine time-budget resume fresh name format type output token offline json quiet stats yes recalibrate dry-run template continue theme test rows workload tasks prompts reps against against-file random head-bits text ctx chunks plot parallel compare max-drop'
complete -c localinfer -n '__localinfer_in config unset' -s h -l help -d 'Show this message and exit.'

# completion
complete -c localinfer -n '__localinfer_in completion' -a 'bash zsh fish'
complete -c localinfer -n '__localinfer_in completion' -s h -l help -d 'Show this message and exit.'

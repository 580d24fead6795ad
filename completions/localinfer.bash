# Completion of localinfer for bash. Made by `python -m localinfer.cli.generate`; do not edit.

_localinfer_words() {
    local word
    for word in "$@"; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
    done
}

# Names are compared and copied, never expanded: a model may be called anything.
_localinfer_names() {
    local word
    while IFS= read -r word; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
    done < <("$program" __complete "$1" 2>/dev/null)
}

_localinfer_files() {
    local word
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <(compgen -f -- "$cur")
    compopt -o filenames 2>/dev/null
}

_localinfer_values() {
    case $prev in
        --revision) : ;;
        --token) : ;;
        --name) : ;;
        --bits) _localinfer_words 16 8 5 4 3 ;;
        --group) _localinfer_words 32 64 128 ;;
        --head) _localinfer_words bf16 f16 8 5 4 ;;
        --effort) _localinfer_words quick default best ;;
        --method) _localinfer_words rtn imatrix awq gptq awq+gptq ;;
        --calib) : ;;
        --tokens) : ;;
        --seed) : ;;
        --bpw) : ;;
        --target-size) : ;;
        --target-kld) : ;;
        --refine) _localinfer_words none kl qat ;;
        --time-budget) : ;;
        --adapter) : ;;
        -t|--threads) : ;;
        --against) _localinfer_names models ;;
        --tasks) : ;;
        --items) : ;;
        --text) _localinfer_files ;;
        --ctx) : ;;
        --chunks) : ;;
        --plot) _localinfer_files ;;
        --backend) _localinfer_words auto cpu cuda llamacpp ;;
        --kv-bits) _localinfer_words 16 8 4 ;;
        --format) _localinfer_words gguf gptq compressed-tensors ;;
        --type) _localinfer_words Q8_0 Q5_0 Q4_0 F16 ;;
        -o|--output) _localinfer_files ;;
        -m|--model) _localinfer_names models ;;
        -p|--prompt) : ;;
        -f|--file) _localinfer_files ;;
        -s|--system) : ;;
        --schema) : ;;
        --regex) : ;;
        --grammar) : ;;
        -n|--max-tokens) : ;;
        --temp) : ;;
        --top-k) : ;;
        --top-p) : ;;
        --min-p) : ;;
        --repeat-penalty) : ;;
        --presence-penalty) : ;;
        --frequency-penalty) : ;;
        --dry-multiplier) : ;;
        --dry-base) : ;;
        --dry-allowed-length) : ;;
        --top-n-sigma) : ;;
        --typical-p) : ;;
        --xtc-probability) : ;;
        --xtc-threshold) : ;;
        --logit-bias) : ;;
        --stop) : ;;
        --samples) : ;;
        --best-of) : ;;
        --on-overflow) _localinfer_words error shift ;;
        -c|--ctx-size) : ;;
        --draft) : ;;
        --draft-tokens) : ;;
        --prefill-chunk) : ;;
        --kv-tokens) : ;;
        --latency-goal) : ;;
        --experts) _localinfer_words auto resident mapped ;;
        --logprobs) : ;;
        --usd-per-kwh) : ;;
        --watts) : ;;
        --hardware-usd) : ;;
        --hardware-years) : ;;
        --api-model) : ;;
        --kv-disk) : ;;
        --in-column) : ;;
        -np|--parallel) : ;;
        --endpoint) : ;;
        --endpoint-model) : ;;
        --endpoint-key-env) : ;;
        --endpoint-timeout) : ;;
        --pool) _localinfer_words last mean ;;
        --theme) : ;;
        --host) : ;;
        --port) : ;;
        --api-key-file) : ;;
        --allow-host) : ;;
        --allow-origin) : ;;
        --keep) : ;;
        --queue) : ;;
        --random) : ;;
        --head-bits) _localinfer_words 8 5 4 3 ;;
        --test) : ;;
        --rows) : ;;
        --workload) _localinfer_words mixed poisson ;;
        --rate) : ;;
        --requests) : ;;
        --prompts) : ;;
        --replay) _localinfer_files ;;
        --reps) : ;;
        --against-file) _localinfer_files ;;
        --compare) : ;;
        --max-drop) : ;;
        --tokens-per-day) : ;;
        --minutes) : ;;
        --kind) _localinfer_words head early ;;
    esac
}

_localinfer() {
    local program=$1 line=${COMP_LINE:0:COMP_POINT}
    local cur=${line##*[[:space:]]} prev command flags='' offer='' skip='' given=0 at=2 word
    local -a typed
    COMPREPLY=()
    read -ra typed <<<"${line%"$cur"}"
    prev=${typed[${#typed[@]} - 1]}
    command=${typed[1]-}
    case $command in
        '') _localinfer_words pull list show rm cache import quantize eval export run map score embed chat serve ps stop bench fit cost draft doctor config completion --help --version; return ;;
        ls) command=list ;;
        cache|draft|config) [[ -n ${typed[2]-} ]] && command="$command ${typed[2]}" && at=3 ;;
    esac
    case $command in
        'cache') offer='_localinfer_words verify prune' ;;
        'draft') offer='_localinfer_words train list rm' ;;
        'config') offer='_localinfer_words show keys set unset' ;;
        'pull') flags='--revision --token --offline --json -q --quiet -h --help' offer='_localinfer_names pullable' ;;
        'list') flags='--json -q --quiet -h --help' offer='' ;;
        'show') flags='--template --revision --json -h --help' offer='_localinfer_names models' ;;
        'rm') flags='--dry-run -y --yes --json -q --quiet -h --help' offer='_localinfer_names models' ;;
        'cache verify') flags='--json -q --quiet -h --help' offer='' ;;
        'cache prune') flags='--dry-run --json -q --quiet -h --help' offer='' ;;
        'import') flags='--name --bits --json -q --quiet -h --help' offer='_localinfer_files' ;;
        'quantize') flags='--bits --group --head --effort --method --calib --tokens --seed --bpw --target-size --target-kld --uniform --refine --time-budget --resume --fresh --name --adapter -t --threads --no-report --revision --offline --json -q --quiet -h --help' offer='_localinfer_names models' ;;
        'eval') flags='--against --tasks --items --text --ctx --chunks --plot --backend --kv-bits -t --threads --revision --offline --json -q --quiet -h --help' offer='_localinfer_names models' ;;
        'export') flags='--format --type --head -o --output --revision --offline --json -q --quiet -h --help' offer='_localinfer_names models' ;;
        'run') flags='-m --model -p --prompt -f --file -s --system --raw --special --schema --json-object --regex --grammar --think --no-think --show-thinking -n --max-tokens --temp --top-k --top-p --min-p --repeat-penalty --presence-penalty --frequency-penalty --dry-multiplier --dry-base --dry-allowed-length --top-n-sigma --typical-p --xtc-probability --xtc-threshold --logit-bias --seed --stop --samples --best-of --on-overflow --lossy -c --ctx-size -t --threads --kv-bits --backend --draft --draft-tokens --prefill-chunk --kv-tokens --latency-goal --experts --adapter --revision --offline --json --logprobs --stats --usd-per-kwh --watts --hardware-usd --hardware-years --api-model --show-drafts --no-remember --kv-disk --no-server -q --quiet -h --help' offer='_localinfer_names models' ;;
        'map') flags='--in-column -o --output --resume -s --system --raw --special --ignore-unknown --schema --json-object --regex --grammar --think --no-think --show-thinking -n --max-tokens --temp --top-k --top-p --min-p --repeat-penalty --presence-penalty --frequency-penalty --dry-multiplier --dry-base --dry-allowed-length --top-n-sigma --typical-p --xtc-probability --xtc-threshold --logit-bias --seed --stop --logprobs -np --parallel -c --ctx-size -t --threads --kv-bits --backend --draft --draft-tokens --prefill-chunk --kv-tokens --latency-goal --experts --adapter --no-server --revision --offline --endpoint --endpoint-model --endpoint-key-env --endpoint-timeout -q --quiet -h --help' offer='_localinfer_names models' ;;
        'score') flags='--in-column -o --output --resume --special --logprobs -np --parallel -c --ctx-size -t --threads --kv-bits --backend --draft --draft-tokens --prefill-chunk --kv-tokens --latency-goal --experts --revision --offline -q --quiet -h --help' offer='' ;;
        'embed') flags='--in-column -o --output --resume --pool --unscaled -np --parallel -c --ctx-size -t --threads --kv-bits --backend --draft --draft-tokens --prefill-chunk --kv-tokens --latency-goal --experts --revision --offline -q --quiet -h --help' offer='' ;;
        'chat') flags='-m --model --continue -s --system --schema --json-object --regex --grammar -n --max-tokens --temp --top-k --top-p --min-p --repeat-penalty --presence-penalty --frequency-penalty --dry-multiplier --dry-base --dry-allowed-length --top-n-sigma --typical-p --xtc-probability --xtc-threshold --logit-bias --seed --stop --on-overflow -c --ctx-size -t --threads --kv-bits --backend --draft --draft-tokens --prefill-chunk --kv-tokens --latency-goal --experts --no-remember --kv-disk --no-server --usd-per-kwh --watts --hardware-usd --hardware-years --api-model --revision --offline --theme -h --help' offer='_localinfer_names models' ;;
        'serve') flags='--host --port --api-key-file --allow-host --allow-origin --keep --queue -np --parallel -c --ctx-size -t --threads --kv-bits --backend --draft --draft-tokens --prefill-chunk --kv-tokens --latency-goal --experts --no-remember --kv-disk --offline -q --quiet -h --help' offer='' ;;
        'ps') flags='--json -h --help' offer='' ;;
        'stop') flags='--json -q --quiet -h --help' offer='' ;;
        'bench') flags='-m --model --random --group --head-bits --test -np --parallel --rows --startup --workload --rate --requests --tasks --prompts --ladder --bits --plot --replay -n --max-tokens --reps --against --against-file --compare --max-drop --history --no-history --seed -c --ctx-size -t --threads --kv-bits --backend --draft --draft-tokens --prefill-chunk --kv-tokens --latency-goal --experts --usd-per-kwh --watts --hardware-usd --hardware-years --revision --offline --json -q --quiet -h --help' offer='_localinfer_names models' ;;
        'fit') flags='-c --ctx-size -t --threads --kv-bits --backend --draft --draft-tokens --prefill-chunk --kv-tokens --latency-goal --experts -np --parallel --revision --token --offline --json -h --help' offer='_localinfer_names pullable' ;;
        'cost') flags='-m --model -np --parallel --tokens-per-day -c --ctx-size -t --threads --kv-bits --backend --draft --draft-tokens --prefill-chunk --kv-tokens --latency-goal --experts --usd-per-kwh --watts --hardware-usd --hardware-years --api-model --plot --revision --offline --json -q --quiet -h --help' offer='_localinfer_names models' ;;
        'draft train') flags='--minutes --text --kind --seed -t --threads --offline --json -q --quiet -h --help' offer='' ;;
        'draft list') flags='--json -q --quiet -h --help' offer='' ;;
        'draft rm') flags='--texts --json -q --quiet -h --help' offer='' ;;
        'doctor') flags='--recalibrate --json -q --quiet -h --help' offer='' ;;
        'config show') flags='--json -h --help' offer='' ;;
        'config keys') flags='--json -h --help' offer='' ;;
        'config set') flags='-h --help' offer='_localinfer_words schema json-object in-column grammar regex adapter max-tokens temp top-k top-p min-p repeat-penalty presence-penalty frequency-penalty dry-multiplier dry-base dry-allowed-length top-n-sigma typical-p xtc-probability xtc-threshold logit-bias logprobs pool unscaled seed samples best-of stop host port api-key-file allow-host allow-origin keep queue no-server endpoint endpoint-model endpoint-key-env endpoint-timeout think no-think show-thinking model prompt file system raw special ignore-unknown lossy revision ctx-size threads kv-bits backend draft minutes kind texts show-drafts no-remember draft-tokens kv-disk kv-tokens latency-goal prefill-chunk experts on-overflow bits group method calib tokens head effort no-report bpw target-kld uniform target-size refine time-budget resume fresh name format type output token offline json quiet stats yes recalibrate dry-run template usd-per-kwh watts hardware-usd hardware-years api-model tokens-per-day continue theme test rows workload rate requests history no-history tasks items prompts startup ladder replay reps against against-file random head-bits text ctx chunks plot parallel compare max-drop' ;;
        'config unset') flags='-h --help' offer='_localinfer_words schema json-object in-column grammar regex adapter max-tokens temp top-k top-p min-p repeat-penalty presence-penalty frequency-penalty dry-multiplier dry-base dry-allowed-length top-n-sigma typical-p xtc-probability xtc-threshold logit-bias logprobs pool unscaled seed samples best-of stop host port api-key-file allow-host allow-origin keep queue no-server endpoint endpoint-model endpoint-key-env endpoint-timeout think no-think show-thinking model prompt file system raw special ignore-unknown lossy revision ctx-size threads kv-bits backend draft minutes kind texts show-drafts no-remember draft-tokens kv-disk kv-tokens latency-goal prefill-chunk experts on-overflow bits group method calib tokens head effort no-report bpw target-kld uniform target-size refine time-budget resume fresh name format type output token offline json quiet stats yes recalibrate dry-run template usd-per-kwh watts hardware-usd hardware-years api-model tokens-per-day continue theme test rows workload rate requests history no-history tasks items prompts startup ladder replay reps against against-file random head-bits text ctx chunks plot parallel compare max-drop' ;;
        'completion') flags='-h --help' offer='_localinfer_words bash zsh fish' ;;
        *) return ;;
    esac
    for word in "${typed[@]:at}"; do
        if [[ -n $skip ]]; then
            skip=''
            continue
        fi
        case $word in
            --revision|--token|--name|--bits|--group|--head|--effort|--method|--calib|--tokens|--seed|--bpw|--target-size|--target-kld|--refine|--time-budget|--adapter|-t|--threads|--against|--tasks|--items|--text|--ctx|--chunks|--plot|--backend|--kv-bits|--format|--type|-o|--output|-m|--model|-p|--prompt|-f|--file|-s|--system|--schema|--regex|--grammar|-n|--max-tokens|--temp|--top-k|--top-p|--min-p|--repeat-penalty|--presence-penalty|--frequency-penalty|--dry-multiplier|--dry-base|--dry-allowed-length|--top-n-sigma|--typical-p|--xtc-probability|--xtc-threshold|--logit-bias|--stop|--samples|--best-of|--on-overflow|-c|--ctx-size|--draft|--draft-tokens|--prefill-chunk|--kv-tokens|--latency-goal|--experts|--logprobs|--usd-per-kwh|--watts|--hardware-usd|--hardware-years|--api-model|--kv-disk|--in-column|-np|--parallel|--endpoint|--endpoint-model|--endpoint-key-env|--endpoint-timeout|--pool|--theme|--host|--port|--api-key-file|--allow-host|--allow-origin|--keep|--queue|--random|--head-bits|--test|--rows|--workload|--rate|--requests|--prompts|--replay|--reps|--against-file|--compare|--max-drop|--tokens-per-day|--minutes|--kind) skip=yes ;;
            -*) ;;
            *) given=$((given + 1)) ;;
        esac
    done
    if [[ -n $skip ]]; then
        _localinfer_values
    elif [[ $cur == -* ]]; then
        _localinfer_words $flags
    elif [[ $given == 0 || $command == rm ]]; then
        $offer
    fi
    # Readline ends a word at `:`, so it wants only what follows the last one.
    if [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then
        local before=${cur%"${cur##*:}"} i
        for i in "${!COMPREPLY[@]}"; do
            COMPREPLY[i]=${COMPREPLY[i]#"$before"}
        done
    fi
}

complete -F _localinfer localinfer

#!/bin/sh
# A profiler that speaks the wire protocol and times nothing: a part takes as many µs as the request has characters after its id.
#   FAKE_PROFILER=slow S   takes S seconds for each measurement
#   FAKE_DEVICE            the device it claims to be
#   FAKE_PROFILER=widths   takes longer for wider whole models
#   FAKE_PROFILER=loaded   is disturbed whenever it times a feed-forward network at decode
#   FAKE_FIXED=1           takes the same time for all
set -u
mode=${FAKE_PROFILER:-}
echo '{"type":"hello","protocol":1,"worker":"fake-profile 1.0","can":["measure","measure_whole"],"device":"'"${FAKE_DEVICE:-cpu: fake}"'","kernels":"fake-1"}'
while IFS= read -r line; do
    case $line in
    '{"type":"measure'*)
        id=${line#*'"id":'}
        id=${id%%,*}
        what=${line#*"$id,"}
        echo "$id" >>"$FAKE_FOLDER/measurements"
        case $mode in slow*) sleep "${mode#* }" ;; esac
        case $line in
        '{"type":"measure_whole"'*)
            # About as many parts as there are mixers and feed-forward networks, and a head.
            parts=1
            rest=$what
            while case $rest in *'"mixer"'*) ;; *) false ;; esac; do
                rest=${rest#*'"mixer"'}
                parts=$((parts + 1))
            done
            rest=$what
            while case $rest in *'"ffn_width"'*) ;; *) false ;; esac; do
                rest=${rest#*'"ffn_width"'}
                parts=$((parts + 1))
            done
            time=$((45 * parts + ${#what} % 9))
            ;;
        *) time=$((${#what} % 50 + 20)) ;;
        esac
        if [ -n "${FAKE_FIXED:-}" ]; then time=$((50 * ${parts:-1})); fi
        parts=1
        case $mode-$line in
        widths-*'"measure_whole"'*)
            width=${line#*'"d_model":'}
            width=${width%%,*}
            ffn=${line#*'"ffn_width":'}
            ffn=${ffn%%[,\}]*}
            case $ffn in *[!0-9]*) ffn=0 ;; esac
            time=$((200 + 10 * width + 5 * ffn))
            ;;
        esac
        case $mode-$line in
        loaded-*'"ffn'*'"decode"'*) load=0.30 ;;
        *) load=0.01 ;;
        esac
        echo '{"type":"timing","id":'"$id"',"median_us":'"$time"'.5,"spread_us":0.5,"samples":31,"other_load":'"$load"',"kernels":"fake-1"}'
        ;;
    esac
done

#!/bin/sh
# A trainer that speaks the wire protocol and trains nothing. Its losses depend on the architecture alone.
# FAKE_TRAINER says how it misbehaves, and FAKE_FOLDER is where it counts:
#   exit N, garbage N, nan N, hang N   at its Nth evaluation (of all processes together); `exit *` at every one
#   wrong_id N, wrong_kind N, endless N, orphan N, flood N
#                                      answers another request, by another reply, writes a line without an end, exits
#                                      while what it started holds its output open, writes far too much
#   unsaved N, escape N                cannot keep a checkpoint, fails with a reason that would clear the screen
#   patient N                          does not answer its Nth evaluation until it is told to stop
#   mute                               exits before its hello
#   configure                          refuses its configuration
#   slow S                             takes S seconds for each evaluation
#   law                                the loss is 2 + 0.3/D + 8/W of depth D and width W, give or take 0.005
#   FAKE_FIXED=1   gives the same loss to all
#   FAKE_NOISE=1   moves it by the number of the evaluation, the seed and the tokens
#   FAKE_VALUE=NAME   reports NAME in the place of bits_per_byte
#   FAKE_TEST=MEAN    reports test_bits_per_byte beside it
# The last configuration it got stays in FAKE_FOLDER.
#   FAKE_AUTO=P    says that "auto" is P here, and was bf16 before that was measured
set -u
if [ "${1:-}" = --precision ]; then
    if [ -z "${FAKE_AUTO:-}" ]; then exit 2; fi
    echo '{"precision":"'"$FAKE_AUTO"'","by_instructions":"bf16","threads":1,"speeds":{"fp32":15400.0,"bf16":11700.0}}'
    exit
fi
mode=${FAKE_TRAINER:-}
what=${mode%% *}
at=${mode#* }
if [ "$what" = mute ]; then echo "cannot load libfoo.so" >&2; exit 127; fi
echo '{"type":"hello","protocol":1,"worker":"fake-train 1.0","can":["evaluate"],"device":"cpu: fake"}'
while IFS= read -r line; do
    case $line in
    '{"type":"configure"'*)
        echo "$line" >"$FAKE_FOLDER/configuration"
        if [ "$what" = configure ]; then
            echo '{"type":"failed","id":0,"reason":"the corpus has 12 tokens, fewer than one sequence of 256"}'
        fi
        ;;
    '{"type":"evaluate"'*)
        id=${line#*'"id":'}
        id=${id%%,*}
        echo "$id" >>"$FAKE_FOLDER/evaluations"
        echo begin >>"$FAKE_FOLDER/order"
        count=$(wc -l <"$FAKE_FOLDER/evaluations")
        echo "evaluation $count begins" >&2
        hit=no
        if [ "$at" = "$((count))" ] || [ "$at" = '*' ]; then hit=yes; fi
        stack=${line#*'"architecture":'}
        stack=${stack%%'],'*}
        loss=$((${#stack} % 900 + 100))
        if [ -n "${FAKE_FIXED:-}" ]; then loss=385; fi
        if [ -n "${FAKE_NOISE:-}" ]; then
            tokens=${line#*'"tokens":'}
            tokens=${tokens%%,*}
            seed=${line#*'"seed":'}
            seed=${seed%%[,\}]*}
            loss=$((loss + (count * 29 + seed * 7 + tokens / 8192) % 100))
        fi
        if [ "$what" = law ]; then
            width=${line#*'"d_model":'}
            width=${width%%,*}
            depth=$(printf '%s' "$line" | grep -o '"ffn_width"' | wc -l)
            # Three decimals: bits per byte is 2.LOSS.
            loss=$((300 / depth + 8000 / width + count % 11 - 5))
            if [ "$loss" -lt 100 ]; then loss=0$loss; fi
        fi
        echo '{"type":"progress","id":'"$id"',"step":1,"tokens":4096,"tokens_total":65536,"loss":5.5,"tokens_per_second":1000}'
        echo '{"type":"progress","id":'"$id"',"step":8,"tokens":32768,"tokens_total":65536,"loss":3.25,"tokens_per_second":2000}'
        case $what-$hit in
        exit-yes) echo "terminate called: out of luck" >&2; exit 3 ;;
        garbage-yes) echo 'Epoch 1: loss 3.2'; continue ;;
        nan-yes) echo '{"type":"result","id":'"$id"',"values":{"bits_per_byte":{"mean":NaN}},"parameters":1,"tokens":65536,"seconds":1}'; continue ;;
        hang-yes) sleep 1000; continue ;;
        patient-yes) continue ;;
        wrong_id-yes) echo '{"type":"result","id":99999,"values":{},"parameters":1,"tokens":65536,"seconds":1}'; continue ;;
        wrong_kind-yes) echo '{"type":"values","id":'"$id"',"values":{"bits_per_byte":2}}'; continue ;;
        endless-yes) exec cat /dev/zero ;;
        unsaved-yes) echo '{"type":"result","id":'"$id"',"values":{"bits_per_byte":{"mean":2.5}},"parameters":1000,"tokens":65536,"seconds":0.5,"unsaved":"cannot write x: no space left on device"}'; continue ;;
        escape-yes) echo '{"type":"failed","id":'"$id"',"reason":"\u001b[2J\u001b[31mred\u0007"}'; printf '\033[2Jlog\n' >&2; continue ;;
        orphan-yes) sleep 1000 & echo $! >"$FAKE_FOLDER/orphan"; exit 3 ;;
        flood-yes)
            # stderr without an end of line, progress without a pause, a reason without measure
            head -c 100000000 /dev/zero | tr '\0' x >&2
            line='{"type":"progress","id":'"$id"',"step":9,"tokens":40000,"tokens_total":65536,"loss":3.25,"tokens_per_second":2000}'
            yes "$line" | head -n 100000
            printf '{"type":"failed","id":%s,"reason":"flooded %s"}\n' "$id" "$(head -c 100000 /dev/zero | tr '\0' y)"
            continue ;;
        slow-*) sleep "$at" ;;
        esac
        echo end >>"$FAKE_FOLDER/order"
        echo '{"type":"result","id":'"$id"',"values":{"'"${FAKE_VALUE:-bits_per_byte}"'":{"mean":2.'"$loss"',"standard_error":0.01},"validation_loss":{"mean":1.5}'"${FAKE_TEST:+,\"test_bits_per_byte\":{\"mean\":$FAKE_TEST,\"standard_error\":0.01\}}"'},"parameters":1000,"tokens":65536,"seconds":0.5,"curve":[[4096,5.5],[32768,3.25],[65536,2.5]]}'
        ;;
    '{"type":"stop"'*)
        id=${line#*'"id":'}
        id=${id%%\}*}
        echo '{"type":"infeasible","id":'"$id"',"reason":"stopped"}'
        ;;
    esac
done

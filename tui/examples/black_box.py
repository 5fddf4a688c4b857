import json
import sys

SPACE = {
    "type": "space",
    "parameters": [
        {"name": "model", "type": "categorical", "choices": ["tree", "net"]},
        {"name": "depth", "type": "integer", "low": 1, "high": 12,
         "when": {"parameter": "model", "is": ["tree"]}},
        {"name": "units", "type": "log-integer", "low": 8, "high": 512,
         "when": {"parameter": "model", "is": ["net"]}},
        {"name": "dropout", "type": "ordinal", "choices": [0, 0.1, 0.3, 0.5]},
    ],
    "objectives": ["cost", {"name": "accuracy", "direction": "maximize"}],
}


def evaluate(model, dropout, depth=0, units=0):  # your own; absent parameters are not passed
    size = depth if model == "tree" else units / 20
    accuracy = 1 - 0.5 / (1 + size) - 0.2 * abs(dropout - 0.1)
    return {"cost": size + 1, "accuracy": accuracy}


for line in sys.stdin:
    request = json.loads(line)
    if request["type"] == "space":
        reply = SPACE
    else:  # "eval"
        try:
            reply = {"type": "values", "values": evaluate(**request["parameters"])}
        except Exception as error:
            reply = {"type": "failed", "reason": str(error)}
        reply["id"] = request["id"]
    print(json.dumps(reply), flush=True)

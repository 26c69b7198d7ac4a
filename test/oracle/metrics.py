"""Metrics by scikit-learn and SciPy: a JSON list of cases on stdin, their results on stdout."""

import json
import sys

try:
    from scipy.stats import norm
    from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score
except ImportError as missing:
    print(f"this Python has no {missing.name}", file=sys.stderr)
    sys.exit(3)


def evaluate(case):
    scores, truth = case["scores"], case["truth"]
    auc = roc_auc_score(truth, scores)
    return {
        "averagePrecision": average_precision_score(truth, scores),
        "auc": auc,
        "dPrime": 2**0.5 * norm.ppf(auc),
    }


def confuse(case):
    classes = range(case["classes"])
    return confusion_matrix(case["labels"], case["predicted"], labels=classes).ravel().tolist()


request = json.load(sys.stdin)
json.dump(
    {
        "binary": [evaluate(case) for case in request["binary"]],
        "quantiles": norm.ppf(request["probabilities"]).tolist(),
        "confusion": confuse(request["confusion"]),
    },
    sys.stdout,
)

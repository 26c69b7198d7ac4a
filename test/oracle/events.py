"""Event metrics by sed_eval and psds_eval: a JSON list of cases on stdin, their results on stdout."""

import builtins
import json
import sys
import warnings

warnings.simplefilter("ignore")
try:
    import numpy
    import pandas
    import psds_eval.psds
    import sed_eval
except ImportError as missing:
    print(f"this Python has no {missing.name}", file=sys.stderr)
    sys.exit(3)


def median(values, size):
    """Medians of odd windows, ends mirrored. SciPy 1.17's filter takes another mirror image where a
    window is far longer than the values: this pads as often as it takes."""
    padded = numpy.pad(numpy.asarray(values, numpy.float64), size // 2, mode="symmetric")
    windows = numpy.lib.stride_tricks.sliding_window_view(padded, size)
    return numpy.median(windows, axis=1).tolist()


# psds_eval 0.5.3 was written for pandas 2 and numpy 1: two calls that later versions refuse.
fillna = pandas.DataFrame.fillna


def fillna_as_before(frame, *args, method=None, **options):
    return frame.ffill() if method == "ffill" else fillna(frame, *args, **options)


pandas.DataFrame.fillna = fillna_as_before
psds_eval.psds.int = lambda value: builtins.int(getattr(value, "item", lambda: value)())


def by_file(events):
    rows = {}
    for file, onset, offset, label in events:
        row = {"file": file, "event_onset": onset, "event_offset": offset, "event_label": label}
        row |= {"onset": onset, "offset": offset}
        rows.setdefault(file, []).append(row)
    return rows


def scores(metrics, classes):
    def one(f_measure, error_rate):
        names = {"f1": "f_measure", "precision": "precision", "recall": "recall"}
        values = {own: f_measure[name] for own, name in names.items()}
        return {**values, "errorRate": error_rate["error_rate"]}

    average = metrics.results_class_wise_average_metrics()
    return {
        "overall": one(metrics.overall_f_measure(), metrics.overall_error_rate()),
        "classAverage": one(average["f_measure"], average["error_rate"]),
        "perClass": [
            one(metrics.class_wise_f_measure(k), metrics.class_wise_error_rate(k)) for k in classes
        ],
    }


def evaluate(case):
    classes, empty = case["classes"], "zero_score" if case["empty"] == "zero" else None
    reference, estimated = by_file(case["reference"]), by_file(case["estimated"])
    segments = sed_eval.sound_event.SegmentBasedMetrics(classes, time_resolution=float(case["segment"]))
    segments.empty_system_output_handling = empty
    options = {"t_collar": case["collar"], "percentage_of_length": case["share"]}
    options["empty_system_output_handling"] = empty
    events = sed_eval.sound_event.EventBasedMetrics(classes, **options)
    onsets = sed_eval.sound_event.EventBasedMetrics(classes, evaluate_offset=False, **options)
    for file in sorted({*reference, *estimated}):
        for metrics in (segments, events, onsets):
            metrics.evaluate(reference.get(file, []), estimated.get(file, []))
    return {
        "segments": scores(segments, classes),
        "events": scores(events, classes),
        "onsets": scores(onsets, classes),
    }


def polyphonic(case):
    columns = ["filename", "onset", "offset", "event_label"]
    table = lambda events: pandas.DataFrame(events, columns=columns)
    scenario = case["scenario"]
    metric = psds_eval.PSDSEval(
        dtc_threshold=scenario["detectionTolerance"],
        gtc_threshold=scenario["groundTruthTolerance"],
        cttc_threshold=scenario["crossTriggerTolerance"],
        ground_truth=table(case["reference"]),
        metadata=pandas.DataFrame(case["durations"], columns=["filename", "duration"]),
    )
    for events in case["points"]:
        metric.add_operating_point(table(events))
    value = lambda cost, spread: metric.psds(cost, spread, scenario["mostFalsePerHour"]).value
    return {
        "value": value(scenario["crossTriggerCost"], scenario["instabilityCost"]),
        # The mean over the classes of the area under each one's curve.
        "mean": value(scenario["crossTriggerCost"], 0.0),
    }


request = json.load(sys.stdin)
json.dump(
    {
        "cases": [evaluate(case) for case in request["cases"]],
        "psds": [polyphonic(case) for case in request["psds"]],
        "medians": [
            median(case["values"], case["size"])
            for case in request["medians"]
        ],
    },
    sys.stdout,
)

"""Exported models as ONNX's own checker and ONNX Runtime see them.

Both are imported when they are first asked for: the other oracles do without them.
"""

import functools


def versions(header, arrays):
    import onnx
    import onnxruntime

    return {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}, []


def check(header, arrays):
    """What the file at "path" is; fails where its form, types or inferred shapes are not right."""
    import onnx

    model = onnx.load(header["path"])
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph

    def shapes(values):
        return {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in values
        }

    return {
        "ir": model.ir_version,
        "opset": [[o.domain, o.version] for o in model.opset_import],
        "producer": [model.producer_name, model.producer_version],
        "name": graph.name,
        "text": graph.doc_string,
        "inputs": shapes(graph.input),
        "outputs": shapes(graph.output),
        "metadata": {p.key: p.value for p in model.metadata_props},
        "ops": sorted({node.op_type for node in graph.node}),
        "initializers": {i.name: list(i.dims) for i in graph.initializer},
    }, []


@functools.lru_cache(maxsize=1)
def session(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(header, arrays):
    """The file's outputs for one input of "shape", by name."""
    model = session(header["path"])
    (given,) = model.get_inputs()
    (x,) = arrays
    outputs = model.run(None, {given.name: x.reshape(header["shape"])})
    names = [output.name for output in model.get_outputs()]
    return {"names": names, "shapes": [list(y.shape) for y in outputs]}, outputs

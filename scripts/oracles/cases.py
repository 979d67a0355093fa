"""The cases of the fixtures, with the checks that make them trustworthy."""
import itertools

import geoopt
import numpy
import torch
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners, regularizers
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from sklearn.metrics import normalized_mutual_info_score

import losses

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

B, C, K, D = 8, 4, 3, 5
LABELS = [0, 1, 1, 3, 0, 3, 0, 1]  # class 2 is not in the batch


def draw(*shape, seed):
    return torch.tensor(numpy.random.default_rng(seed).standard_normal(shape))


def agree(what, a, b, tolerance=1e-12):
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    worst = ((a - b).abs() / b.abs().clamp(min=1.0)).max().item()
    assert worst <= tolerance, f"{what}: {worst}"


def finite_differences(what, function, tensors, gradients, step=1e-6, tolerance=2e-7):
    for name, tensor in tensors.items():
        flat = tensor.detach().reshape(-1)
        for index in range(flat.numel()):
            ends = []
            for sign in (1, -1):
                moved = flat.clone()
                moved[index] += sign * step
                others = {n: t.detach() for n, t in tensors.items()}
                others[name] = moved.reshape(tensor.shape)
                ends.append(function(**others).item())
            slope = (ends[0] - ends[1]) / (2 * step)
            agree(f"{what} d/d{name}[{index}]", gradients[name].reshape(-1)[index], slope, tolerance)


def case(name, function, inputs, parameters=None, **extra):
    """Value and gradients of `function(**inputs)`, checked."""
    tensors = {n: t.detach().clone().requires_grad_() for n, t in inputs.items()}
    value = function(**tensors)
    value.backward()
    gradients = {n: t.grad if t.grad is not None else torch.zeros_like(t) for n, t in tensors.items()}
    for gradient in gradients.values():
        assert torch.isfinite(gradient).all(), name
    finite_differences(name, function, tensors, gradients)
    return {
        "name": name,
        "parameters": parameters or {},
        "inputs": {n: t.tolist() for n, t in inputs.items()},
        "value": value.item(),
        "gradients": {n: g.tolist() for n, g in gradients.items()},
        **extra,
    }


def against(made, oracle_value, oracle_gradients):
    """The oracle's value and gradients replace ours once they agree."""
    agree(made["name"], made["value"], oracle_value)
    made["value"] = float(oracle_value)
    for name, gradient in oracle_gradients.items():
        agree(f"{made['name']} gradient {name}", torch.tensor(made["gradients"][name]), gradient)
        made["gradients"][name] = gradient.tolist()
    made["oracle"] = "pytorch-metric-learning"
    return made


def run_pml(loss, parameter, layout, x, w, y, *rest):
    """Runs an oracle with proxies `w`, laid out as it wants them."""
    x = x.detach().clone().requires_grad_()
    w = w.detach().clone().requires_grad_()
    setattr(loss, parameter, torch.nn.Parameter(layout(w).detach().clone()))
    value = loss(x, y, *rest)
    value.backward()
    layout(w).backward(getattr(loss, parameter).grad)
    return value.item(), {"x": x.grad, "w": w.grad}


def batches():
    """A usual batch, near-identical items, and one where all is one class."""
    x, y = draw(B, D, seed=1), torch.tensor(LABELS)
    close = draw(1, D, seed=2) + 1e-5 * draw(B, D, seed=3)
    return [("usual", x, y), ("near", close, y), ("one-class", x, torch.full((B,), 1))]


def proxy_losses():
    out = []
    for batch, x, y in batches():
        w = draw(C, D, seed=4)
        for alpha, delta in ((32.0, 0.1), (4.0, 0.3)):
            made = case(f"proxy-anchor/{batch}/{alpha:g}",
                        lambda x, w: losses.proxy_anchor(x, w, y, alpha, delta),
                        {"x": x, "w": w}, {"alpha": alpha, "delta": delta}, labels=y.tolist())
            oracle = pml_losses.ProxyAnchorLoss(C, D, margin=delta, alpha=alpha)
            out.append(against(made, *run_pml(oracle, "proxies", lambda w: w, x, w, y)))
        for scale in (1.0, 9.0):
            made = case(f"proxy-nca/{batch}/{scale:g}",
                        lambda x, w: losses.proxy_nca(x, w, y, scale),
                        {"x": x, "w": w}, {"scale": scale}, labels=y.tolist())
            oracle = pml_losses.ProxyNCALoss(C, D, softmax_scale=scale)
            out.append(against(made, *run_pml(oracle, "proxies", lambda w: w, x, w, y)))
    return out


def softtriple():
    out = []
    m = {"la": 20.0, "gamma": 0.1, "delta": 0.01}
    for (batch, x, y), k in itertools.product(batches(), (1, K)):
        w = draw(C, k, D, seed=5 + k)
        made = case(f"softtriple/{batch}/{k}", lambda x, w: losses.softtriple(x, w, y, **m),
                    {"x": x, "w": w}, m, labels=y.tolist())
        oracle = pml_losses.SoftTripleLoss(C, D, centers_per_class=k, la=20, gamma=0.1, margin=0.01)
        out.append(against(made, *run_pml(oracle, "fc", lambda w: w.reshape(-1, D).T, x, w, y)))
    w = draw(C, K, D, seed=9)
    out.append(case("softtriple-regulariser", lambda w: losses.centre_regulariser(w), {"w": w},
                    {"epsilon": 1e-5}))
    # The oracle adds the least positive number under the root, not the paper's 1e-5.
    tiny = torch.finfo(torch.float64).tiny
    made = case("softtriple-regulariser/tiny", lambda w: losses.centre_regulariser(w, tiny),
                {"w": w}, {"epsilon": 0.0})
    v = w.clone().requires_grad_()
    value = regularizers.SparseCentersRegularizer(C, K)(v.reshape(-1, D))
    value.backward()
    out.append(against(made, value.item(), {"w": v.grad}))
    out.append(case("sparse-regulariser", lambda w: losses.sparse_regulariser(w), {"w": w}))
    return out


def multi_similarity():
    out = []
    m = {"alpha": 2.0, "beta": 50.0, "base": 0.5}
    for batch, x, y in batches():
        for epsilon in (None, 0.1):
            name = f"multi-similarity/{batch}/{'mined' if epsilon else 'all'}"
            made = case(name, lambda x: losses.multi_similarity(x, y, epsilon=epsilon, **m),
                        {"x": x}, {**m, "epsilon": epsilon}, labels=y.tolist())
            v = x.clone().requires_grad_()
            pairs = miners.MultiSimilarityMiner(epsilon=epsilon)(v, y) if epsilon else None
            value = pml_losses.MultiSimilarityLoss(**m)(v, y, pairs)
            value.backward()
            out.append(against(made, value.item(), {"x": v.grad}))
    return out


def mpa():
    out = []
    m = {"alpha": 32.0, "delta": 0.1, "gamma": 0.1}
    y = torch.tensor(LABELS)
    members = list(itertools.product(("class", "data"), ("class", "data")))
    for (batch, x, y), (positive, negative), pooling in itertools.product(
            batches(), members, ("softtriple", "lse", "max")):
        if batch == "one-class" and pooling != "softtriple":
            continue
        w = draw(C, K, D, seed=11)
        out.append(case(
            f"mpa/{batch}/{positive}-{negative}/{pooling}",
            lambda x, w: losses.mpa(x, w, y, positive, negative, pooling, **m),
            {"x": x, "w": w}, {**m, "positive": positive, "negative": negative, "pooling": pooling},
            labels=y.tolist()))
    # With one proxy a class the class-wise member is Proxy Anchor, however pooled.
    x, w, y = draw(B, D, seed=1), draw(C, D, seed=4), torch.tensor(LABELS)
    oracle = pml_losses.ProxyAnchorLoss(C, D, margin=0.1, alpha=32)
    value, _ = run_pml(oracle, "proxies", lambda w: w, x, w, y)
    for pooling in ("softtriple", "lse", "max"):
        agree("K = 1", losses.mpa(x, w[:, None], y, "class", "class", pooling, **m).item(), value)
    # The pooling's gradient: q (1 + (s - S) / gamma).
    s = draw(6, seed=12).requires_grad_()
    S = losses.pool(s, "softtriple", 0.1)
    S.backward()
    agree("pooling", s.grad, (torch.softmax(s / 0.1, 0) * (1 + (s - S) / 0.1)).detach())
    return out


CHEST = {"c": 0.1, "r": 2.3, "la_e": 20.0, "gamma_e": 0.1, "delta_e": 0.01, "tau": 0.2,
         "la_h": 4.35, "gamma_h": 0.46, "delta_h": 0.046, "mu_h": 1.0, "mu_hc": 0.5,
         "temperature": 0.05}
TRIPLES = [[0, 1, 5], [0, 2, 9], [3, 4, 11], [1, 6, 10], [7, 8, 2], [5, 3, 0]]


def hyperbolic():
    out = []
    y = torch.tensor(LABELS)
    m = {"c": 0.1, "r": 2.3, "la": 4.35, "gamma": 0.46, "delta": 0.046}
    u, v = draw(B, D, seed=21), draw(C, K, D, seed=22)
    for name, scale in (("usual", 1.0), ("clipped", 3.0), ("small", 1e-3)):
        out.append(case(f"hyperbolic-softtriple/{name}",
                        lambda u, v: losses.hyperbolic_softtriple(u, v, y, **m),
                        {"u": scale * u, "v": scale * v}, m, labels=LABELS))
    points = [losses.exp0(losses.clip(draw(6, D, seed=30 + n), 1.5), 1.0) for n in range(3)]
    s = draw(6, 3, seed=33).sigmoid()
    for t in (0.05, 1.0):
        out.append(case(f"hyphc/{t:g}", lambda i, j, k: losses.hyphc(i, j, k, s, t),
                        dict(zip("ijk", points)), {"temperature": t}, similarities=s.tolist()))
    z, rho = (losses.exp0(losses.clip(draw(n, D, seed=seed), 2.3), 0.1) for n, seed in ((B, 34), (6, 35)))
    triples = [[0, 4, 1], [1, 2, 3], [3, 5, 6], [1, 7, 0]]
    out.append(case("hier/same", lambda z, rho: losses.hier(z, rho, triples, 0.1, 0.1),
                    {"z": z, "rho": rho}, {"c": 0.1, "delta": 0.1}, triples=triples))
    assert out[-1]["value"] == 0.0
    # Few dimensions and many ancestors: pairs and triples have different ones.
    z, rho = (losses.exp0(losses.clip(draw(n, 2, seed=seed), 2.3), 0.1) for n, seed in ((B, 36), (40, 37)))
    for name, items, inputs in (
            ("items", lambda z, rho: z, {"z": z, "rho": rho}),
            ("ancestors", lambda rho: rho, {"rho": rho})):
        triples = hier_triples(items(**inputs), rho)
        function = lambda items=items, triples=triples, **t: losses.hier(items(**t), t["rho"], triples, 0.1, 1.0)
        out.append(case(f"hier/{name}", function, inputs, {"c": 0.1, "delta": 1.0}, triples=triples))
        assert out[-1]["value"] > 1.0
    return out


def hier_triples(z, rho):
    """Six triples with two ancestors that are no members of them."""
    d = losses.distance(z[:, None], rho[None], 0.1)
    found = []
    for i, j, k in itertools.permutations(range(8), 3):
        pair = torch.maximum(d[i], d[j])
        near, far = pair.argmin().item(), torch.maximum(pair, d[k]).argmin().item()
        members = {i, j, k} if len(z) == len(rho) else set()
        if near != far and not members & {near, far} and (k + i) % 3 == 0:
            found.append([i, j, k])
    assert len(found) >= 6, len(found)
    return found[::len(found) // 6][:6]


def chest():
    out = []
    y = torch.tensor(LABELS)
    inputs = {"e": draw(B, D, seed=41), "u": draw(B, 4, seed=42),
              "p": draw(C, K, D, seed=43), "v": draw(C, K, 4, seed=44)}
    whole = ("e", "h", "tree", "centres")
    for similarity, switches in [("cross", whole), ("own", whole)] + [
            ("cross", tuple(s for s in whole if s != drop)) for drop in whole]:
        def function(e, u, p, v):
            return losses.chest(e, u, p, v, y, TRIPLES, similarity, switches, CHEST)
        name = f"chest/{similarity}/{'+'.join(switches)}"
        tensors = {n: t.clone().requires_grad_() for n, t in inputs.items()}
        value = function(**tensors)
        value.backward()
        gradients = {n: t.grad if t.grad is not None else torch.zeros_like(t) for n, t in tensors.items()}
        if "tree" not in switches:
            finite_differences(name, function, tensors, gradients)
        else:
            # The similarities are detached: differences see them move. With
            # them held still (u, v under "cross") both agree.
            for n in ("e", "u", "p") if similarity == "own" else ("e", "u", "v"):
                finite_differences(name, lambda **t: function(**{**{k: a.detach() for k, a in tensors.items()}, **t}),
                                   {n: tensors[n]}, {n: gradients[n]})
        out.append({"name": name, "parameters": CHEST, "similarity": similarity,
                    "switches": list(switches), "triples": TRIPLES, "labels": LABELS,
                    "inputs": {n: t.tolist() for n, t in inputs.items()}, "value": value.item(),
                    "gradients": {n: g.tolist() for n, g in gradients.items()}})
    return out


def poincare():
    out = []
    for c in (0.1, 1.0):
        ball = geoopt.PoincareBallExact(c=c)
        for n in range(6):
            size = (0.05, 0.3, 0.6, 0.9, 1.2, 1.2)[n] / c ** 0.5
            u, v = (losses.clip(10 * draw(4, seed=50 + 2 * n + s), size) for s in (0, 1))
            if n == 5:
                v = u + 1e-6 * v
            x, y = ball.expmap0(u), ball.expmap0(v)
            agree("exp0", losses.exp0(u, c), x)
            x = x.detach().requires_grad_()
            d = losses.distance(x, y, c)
            d.backward()
            # geoopt's atanh form loses digits between near points.
            agree("distance", d.item(), ball.dist(x, y).item(), 1e-9 if n == 5 else 1e-12)
            agree("d(0, exp0 u) = 2|u|", losses.distance(torch.zeros_like(u), x, c).item(), 2 * u.norm().item())
            finite = {"x": x}
            finite_differences("distance", lambda x: losses.distance(x, y, c), finite, {"x": x.grad},
                               1e-7 if n < 5 else 1e-9, 1e-5 if n == 5 else 1e-6)
            if n < 5:
                w = x.detach().clone().requires_grad_()
                ball.dist(w, y).backward()
                agree("gradient", x.grad, w.grad, 1e-10)
            out.append({"c": c, "u": u.tolist(), "v": v.tolist(), "x": x.tolist(), "y": y.tolist(),
                        "distance": d.item(), "gradient": x.grad.tolist()})
    # The ancestor's depth against the least distance along the geodesic.
    ball = geoopt.PoincareBallExact(c=1.0)
    trees = []
    for n in range(8):
        a, b = (losses.exp0(losses.clip(draw(3, seed=70 + 2 * n + s), 1.2), 1.0) for s in (0, 1))
        t = torch.linspace(0, 1, 20001)[:, None]
        along = ball.geodesic(t, a[None], b[None])
        least = ball.dist0(along).min().item()
        depth = losses.ancestor_depth(a, b).item()
        agree("ancestor", depth, least, 1e-7)
        trees.append({"a": a.tolist(), "b": b.tolist(), "depth": depth})
    return {"pairs": out, "ancestors": trees}


def metrics():
    rng = numpy.random.default_rng(7)
    # Values that single precision holds exactly.
    labels = [int(i) for i in rng.integers(0, 7, 90)] + [7]  # one item of class 7
    centres = rng.standard_normal((8, 6))
    rows = (centres[labels] + 1.2 * rng.standard_normal((91, 6))).astype(numpy.float32)
    query = (centres[[0, 1, 2, 3, 4, 5, 6] * 4] + 1.2 * rng.standard_normal((28, 6))).astype(numpy.float32)
    query_labels = [0, 1, 2, 3, 4, 5, 6] * 4
    wanted = ("precision_at_1", "r_precision", "mean_average_precision_at_r", "NMI")
    assignment = [int(i) for i in rng.integers(0, 8, 91)]
    assignment = [label if i % 3 else a for i, (label, a) in enumerate(zip(labels, assignment))]
    out = {"rows": rows.astype(float).tolist(), "labels": labels,
           "queries": query.astype(float).tolist(), "query_labels": query_labels,
           "assignment": assignment, "nmi": float(normalized_mutual_info_score(labels, assignment))}
    for name, unit in (("euclidean", False), ("cosine", True)):
        calculator = AccuracyCalculator(
            include=wanted[:3], k="max_bin_count", device=torch.device("cpu"),
            knn_func=CustomKNN(LpDistance(normalize_embeddings=unit)))
        ready = [torch.tensor(a.astype(float)) for a in (rows, query)]
        y, yq = torch.tensor(labels), torch.tensor(query_labels)
        alone = calculator.get_accuracy(ready[0], y)
        apart = calculator.get_accuracy(ready[1], yq, ready[0], y)
        out[name] = {"alone": {k: float(alone[k]) for k in wanted[:3]},
                     "apart": {k: float(apart[k]) for k in wanted[:3]}}
    return out


def everything():
    return {
        "proxy_losses": proxy_losses(),
        "softtriple": softtriple(),
        "multi_similarity": multi_similarity(),
        "mpa": mpa(),
        "hyperbolic": hyperbolic(),
        "chest": chest(),
        "poincare": poincare(),
        "metrics": metrics(),
    }

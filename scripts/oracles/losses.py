"""The losses of oboro-learn in torch, from their formulas; no oracle's code.

Embeddings and Euclidean proxies are free vectors, normalised inside;
hyperbolic ones are tangent vectors at the origin, clipped and mapped inside.
Proxies are [C, K, D], labels [B].
"""
import torch
import torch.nn.functional as F


def unit(v):
    return F.normalize(v, dim=-1)


def log1p_sum_exp(z, mask, dim):
    """log(1 + sum of e^z where mask), a log-sum-exp with a 0 appended."""
    z = z.masked_fill(~mask, float("-inf"))
    zero = torch.zeros_like(z.select(dim, 0)).unsqueeze(dim)
    return torch.logsumexp(torch.cat([z, zero], dim), dim)


# ---- pooling over the proxies of a class: [B, C, K] -> [B, C]

def pool(s, kind, gamma):
    if kind == "softtriple":
        return (torch.softmax(s / gamma, -1) * s).sum(-1)
    if kind == "lse":
        return gamma * torch.logsumexp(s / gamma, -1)
    if kind == "max":
        return s.max(-1).values
    raise ValueError(kind)


def similarities(x, w):
    return torch.einsum("bd,ckd->bck", unit(x), unit(w))


# ---- SoftTriple and its regularisers

def softtriple_ce(S, y, la, delta):
    margin = delta * F.one_hot(y, S.shape[1])
    return F.cross_entropy(la * (S - margin), y)


def softtriple(x, w, y, la, gamma, delta):
    return softtriple_ce(pool(similarities(x, w), "softtriple", gamma), y, la, delta)


def centre_regulariser(w, epsilon=1e-5):
    C, K, _ = w.shape
    p = unit(w)
    total = 0.0
    for k in range(K):
        for l in range(k + 1, K):
            total = total + torch.sqrt(2 + epsilon - 2 * (p[:, k] * p[:, l]).sum(-1)).sum()
    return total / (C * K * (K - 1))


def sparse_regulariser(w):
    """Mean L1 norm of the normalised proxies: reconstructed."""
    return unit(w).abs().sum(-1).mean()


# ---- Proxy Anchor, Proxy-NCA++, Multi-Similarity

def proxy_anchor(x, w, y, alpha, delta):
    return mpa(x, w.unsqueeze(1), y, "class", "class", "softtriple", alpha, delta, 0.1)


def proxy_nca(x, w, y, scale):
    """-log softmax over all proxies of -scale |x - w|^2 (Proxy-NCA++)."""
    squared = (unit(x).unsqueeze(1) - unit(w).unsqueeze(0)).pow(2).sum(-1)
    return F.cross_entropy(-scale * squared, y)


def multi_similarity(x, y, alpha, beta, base, epsilon=None):
    s = unit(x) @ unit(x).T
    own = torch.eye(len(y), dtype=torch.bool)
    positive = (y[:, None] == y[None, :]) & ~own
    negative = y[:, None] != y[None, :]
    if epsilon is not None:
        hardest_negative = s.masked_fill(~negative, float("-inf")).max(1).values
        hardest_positive = s.masked_fill(~positive, float("inf")).min(1).values
        positive, negative = (
            positive & (s - epsilon < hardest_negative[:, None]),
            negative & (s + epsilon > hardest_positive[:, None]),
        )
    pull = log1p_sum_exp(-alpha * (s - base), positive, 1) / alpha
    push = log1p_sum_exp(beta * (s - base), negative, 1) / beta
    return (pull + push).mean()


# ---- the MPA family: reconstructed from the cited building blocks

def mpa(x, w, y, positive, negative, pooling, alpha, delta, gamma):
    S = pool(similarities(x, w), pooling, gamma)
    own = F.one_hot(y, S.shape[1]).bool()
    pull, push = -alpha * (S - delta), alpha * (S + delta)
    if positive == "class":
        terms = log1p_sum_exp(pull, own, 0)
        loss = terms.sum() / own.any(0).sum()
    else:
        loss = log1p_sum_exp(pull, own, 1).mean()
    if negative == "class":
        return loss + log1p_sum_exp(push, ~own, 0).mean()
    return loss + log1p_sum_exp(push, ~own, 1).mean()


# ---- the Poincare ball

def clip(u, r):
    norm = u.norm(dim=-1, keepdim=True)
    return u * torch.clamp(r / norm, max=1.0)


def exp0(u, c):
    length = c ** 0.5 * u.norm(dim=-1, keepdim=True)
    return torch.tanh(length) * u / length


def distance(x, y, c):
    q = (x - y).pow(2).sum(-1)
    gaps = (1 - c * x.pow(2).sum(-1)) * (1 - c * y.pow(2).sum(-1))
    return 2 / c ** 0.5 * torch.asinh(torch.sqrt(c * q / gaps))


def hyperbolic_softtriple(u, v, y, c, r, la, gamma, delta):
    z, o = exp0(clip(u, r), c), exp0(clip(v, r), c)
    s = -distance(z[:, None, None, :], o[None], c)
    return softtriple_ce(pool(s, "softtriple", gamma), y, la, delta)


# ---- HypHC in the unit ball

def ancestor_depth(a, b):
    origin = torch.zeros_like(a)
    x0 = torch.cosh(distance(origin, a, 1.0))
    y0 = torch.cosh(distance(origin, b, 1.0))
    w = torch.cosh(distance(a, b, 1.0))
    near, far = torch.minimum(x0, y0), torch.maximum(x0, y0)
    squared = (2 * w * x0 * y0 - x0 ** 2 - y0 ** 2) / (w ** 2 - 1)
    between = torch.acosh(torch.sqrt(squared.clamp(min=1.0 + 1e-15)))
    return torch.where(far >= near * w, torch.acosh(near), between)


def hyphc(i, j, k, s, temperature):
    """Points [N, D] in the unit ball, similarities [N, 3] of ij, ik, jk."""
    depths = torch.stack([ancestor_depth(i, j), ancestor_depth(i, k), ancestor_depth(j, k)], -1)
    weights = torch.softmax(depths / temperature, -1)
    return (s.sum(-1) - (weights * s).sum(-1)).mean()


# ---- HIER-style: reconstructed; ancestors chosen by arg max, without noise

def hier(z, rho, triples, c, delta):
    """Of every triple (i, j, k): i and j share a nearer ancestor than with k.

    The ancestor of a set is the proxy whose largest distance to it is least.
    Nothing is asked where both ancestors are the same.
    """
    with torch.no_grad():
        d = distance(z[:, None], rho[None], c)
    # One by one: between a point and itself there is no gradient.
    apart = lambda item, ancestor: distance(z[item], rho[ancestor], c)
    total = 0.0 * (z.sum() + rho.sum())
    for i, j, k in triples:
        pair = torch.maximum(d[i], d[j])
        near, far = pair.argmin(), torch.maximum(pair, d[k]).argmin()
        if near == far:
            continue
        total = total + F.relu(apart(i, near) - apart(i, far) + delta)
        total = total + F.relu(apart(j, near) - apart(j, far) + delta)
        total = total + F.relu(apart(k, far) - apart(k, near) + delta)
    return total / len(triples)


# ---- CHEST: reconstructed from the cited building blocks

def chest(e, u, p, v, y, triples, similarity, switches, m):
    """e, u: the heads' outputs; p: Euclidean proxies; v: tangent ones.

    `switches` names the parts kept: "e", "h", "tree", "centres".
    """
    loss = torch.zeros((), dtype=e.dtype)
    if "e" in switches:
        loss = loss + softtriple(e, p, y, m["la_e"], m["gamma_e"], m["delta_e"])
    if "h" in switches:
        loss = loss + m["mu_h"] * hyperbolic_softtriple(
            u, v, y, m["c"], m["r"], m["la_h"], m["gamma_h"], m["delta_h"])
    if "tree" in switches:
        C, K, _ = v.shape
        o = exp0(clip(v, m["r"]), m["c"]).reshape(C * K, -1)
        i, j, k = (torch.tensor([t[n] for t in triples]) for n in range(3))
        a, b = torch.stack([i, i, j], -1), torch.stack([j, k, k], -1)
        if similarity == "cross":
            q = unit(p).reshape(C * K, -1)
            s = (1 + (q[a] * q[b]).sum(-1)) / 2
        else:
            s = torch.exp(-distance(o[a], o[b], m["c"])) + (a // K == b // K)
        # In the unit ball: sqrt(c) times a point.
        ball = m["c"] ** 0.5 * o
        loss = loss + m["mu_hc"] * hyphc(ball[i], ball[j], ball[k], s.detach(), m["temperature"])
    if "centres" in switches:
        loss = loss + m["tau"] * centre_regulariser(p)
    return loss

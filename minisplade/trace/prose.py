"""What a reader of a trace is told at each stage."""

from minisplade.pooling import Activation, Strategy

TOKENS = (
    "The text is cut into tokens: whole words where the vocabulary has them, else pieces, of which "
    "all but the first begin with ## in BERT's. Each is replaced by its number in the vocabulary. "
    "Tokens of their own, such as [CLS] and [SEP], mark beginning and end. From here on, the model "
    "sees only these numbers."
)
EMBEDDINGS = (
    "Each token number picks a row from a table that was learned in training: a vector that says "
    "what the token is. A second vector says where it stands, because otherwise the model could "
    "not tell an order. Both are added and normalised. So far, a token has the same "
    "vector in every text with that token at that place."
)
ROTARY_EMBEDDINGS = (
    "Each token number picks a row from a table that was learned in training: a vector that says "
    "what the token is. It is normalised. Where the token stands is told in the layers: there, "
    "queries and keys are turned by an angle that grows with the place. So far, a token has the "
    "same vector in every text."
)
FIRST_LAYER = (
    "Now tokens look at each other. Each one asks a question (query) and offers an answer's label "
    "(key) and content (value). Where a query and a key point the same way, attention is large; "
    "softmax makes the attention that a token gives sum to 1. The token takes that share of every "
    "value. Each head does this with tables of its own, so each may look for something else. Then "
    "a small network works on each token alone (feed-forward), and both results are added to "
    "what was there before. Now a token's vector depends on the text around it."
)
NEXT_LAYER = (
    "The next layer does the same with tables of its own, but starts from vectors that already "
    "know something of their neighbours. So later layers can use what earlier ones found out."
)
SHARED_LAYER = (
    "The next layer does the same with the same tables, but starts from vectors that already know "
    "something of their neighbours. So later layers can use what earlier ones found out."
)
LOGITS = (
    "The head compares the vector of each token with a learned vector of every term in the "
    "vocabulary: one number, a logit, for each token and term. Training made it positive where "
    "the term would help to find this text, whether the text has the term or not. Held to the "
    "vectors of earlier layers, the same head shows where in the model a term comes up: this is "
    "called the logit lens. Before the first layer a token knows nothing but itself, so the head "
    "names it and its like. Watch which terms move up, and how many logits stay above 0."
)
POOLING: dict[Strategy, str] = {
    "max": (
        "For each term, the largest logit over all tokens counts: the text is about a term if any "
        "token says so. A logit below 0 gives weight 0, which makes the vector sparse. Above it, "
        "the weight is log(1 + logit), so that no single term drowns the others."
    ),
    "sum": (
        "For each term, every token adds log(1 + logit) if its logit is above 0. Logits below 0 "
        "give nothing, which makes the vector sparse."
    ),
}
ACTIVATION: dict[Activation, str] = {
    "relu": "",
    "log1p_relu": " This model takes that logarithm twice: log(1 + log(1 + logit)).",
}
VECTOR = (
    "What is left are a few terms with weights, and that is all an index keeps. The score of a "
    "document for a query is the sum over the terms that both have, weight times weight. Terms "
    "that the text itself does not have are expansions: they find what uses other words."
)

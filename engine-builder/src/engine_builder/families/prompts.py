"""How the reference implementations of decoder rerankers put a pair into words.

The words are the ones the models were trained with. Used where a model's own files bring no
template for pairs.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Joined:
    """Texts that the reference implementation tokenises one by one and joins by their tokens.

    `query` and `passage` are what stands right before these texts and is tokenised with them.
    """

    lead: tuple[str, ...]
    query: str
    gap: tuple[str, ...]
    passage: str
    trail: tuple[str, ...]


@dataclass(frozen=True)
class Whole:
    """One text with `{query}` and `{passage}` that is tokenised as it is.

    `lead` and `trail` are tokenised on their own, before and after it. Unless `exact`, and without
    special tokens in any of them, the tokenizer adds its own.
    """

    text: str
    lead: str = ""
    trail: str = ""
    exact: bool = False


#: FlagEmbedding, inference/reranker/decoder_only/base.py: a list of ids for each part; `<bos>`
#: where the tokenizer has one.
BGE_GEMMA = Joined(
    lead=("<bos>",),
    query="A: ",
    gap=("\n",),
    passage="B: ",
    trail=(
        "\n",
        "Given a query A and a passage B, determine whether the passage contains an answer to the "
        "query by providing a prediction of either 'Yes' or 'No'.",
    ),
)

#: mxbai_rerank/mxbai_rerank_v2.py (mixedbread-ai/mxbai-rerank), without an instruction: a list of
#: ids for each part.
MXBAI_V2 = Joined(
    lead=(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\n<|im_start|>user\n",
    ),
    query="query: ",
    gap=("\n",),
    passage="document: ",
    trail=(
        "\n",
        "You are a search relevance expert who evaluates how well documents match search queries. "
        "For each query-document pair, carefully analyze the semantic relationship between them, "
        "then provide your binary relevance judgment (0 for not relevant, 1 for relevant).\n"
        "Relevance:",
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
)

#: Model card of Qwen/Qwen3-Reranker-0.6B: the pair is one text between two lists of ids; the
#: instruction is the card's default.
QWEN3_RERANKER = Whole(
    lead="<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
    'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n",
    text="<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {passage}",
    trail="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
)

#: Model card of nvidia/llama-nemotron-rerank-1b-v2; the blanks are part of it.
NEMOTRON = Whole(text="question:{query} \n \n passage:{passage}")

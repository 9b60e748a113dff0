"""The words of the report in English and Chinese."""

from __future__ import annotations

from vireid.types import Language

WORDS = {
    "en": {
        "title": "{method} on {data}",
        "title of several": "{count} runs compared",
        "run": "Run {name}, vireid {version}",
        "results": "Results",
        "marks": "bold: the best of a protocol, underlined: the second",
        "paired": "Differences on the same queries",
        "figures": "Figures",
        "no figures": "The figures are left out: {reason}",
        "failures": "Hardest queries",
        "failures of": "Hardest queries of {name}",
        "failures about": "The queries of {protocol}, trial 0, with the lowest average precision, of different people. "
        "Open one to see its ten nearest pictures.",
        "failure": "{query}: average precision {ap} %, first true match at rank {rank}",
        "query": "query",
        "hit": "{rank}. {kind}",
        "same": "same person",
        "other": "another person",
        "camera": "camera {camera}, {modality}",
        "visible": "visible",
        "infrared": "infrared",
        "ranked": "Ranked lists",
        "full size": "full size: {path}",
        "cost": "Cost",
        "cost about": "The network that is deployed; milliseconds for a picture in batches of 16 on {device}, "
        "when this page was made.",
        "what": "What was run",
        "how": "How to repeat it",
        "record": "The whole record",
    },
    "zh": {
        "title": "{method}，数据集 {data}",
        "title of several": "{count} 次训练的比较",
        "run": "训练 {name}，vireid {version}",
        "results": "结果",
        "marks": "粗体：该协议下最好的结果；下划线：第二好的结果",
        "paired": "相同查询上的差异",
        "figures": "图",
        "no figures": "未绘制图：{reason}",
        "failures": "最难的查询",
        "failures of": "{name} 最难的查询",
        "failures about": "{protocol} 第 0 次试验中平均精度最低的查询，每个行人一个。展开可查看最相似的十张图像。",
        "failure": "{query}：平均精度 {ap}%，首个正确匹配排名 {rank}",
        "query": "查询图像",
        "hit": "{rank}. {kind}",
        "same": "同一人",
        "other": "不同的人",
        "camera": "摄像头 {camera}，{modality}",
        "visible": "可见光",
        "infrared": "红外",
        "ranked": "检索排序结果",
        "full size": "原始尺寸：{path}",
        "cost": "开销",
        "cost about": "部署的网络；生成本页时在 {device} 上以 16 张为一批测得的每张图像毫秒数。",
        "what": "训练内容",
        "how": "如何复现",
        "record": "完整记录",
    },
}
HEADINGS = {  # of the columns of tables, in Chinese
    "name": "名称",
    "protocol": "协议",
    "trials": "试验",
    "queries": "查询",
    "valid": "有效",
    "gallery": "图库",
    "stamp": "印记",
    "method": "方法",
    "against": "对照",
    "difference in mAP": "mAP 差（百分点）",
    "95 % interval": "95% 区间",
    "people": "行人",
    "seeds": "种子",
    "run": "训练",
    "parameters": "参数量",
    "MB": "MB",
    "ms per picture": "毫秒/图像",
    "dimensions": "维数",
    "training s": "训练秒数",
}
FIGURES = {  # captions
    "en": {
        "cmc": "CMC: how often a true match is among the first k results.",
        "histograms": "Similarities of pairs: the less the two densities overlap, the better a threshold separates "
        "one person from different people.",
        "projection": "Embeddings in the plane. Distances between groups mean little; a long line is a person whose "
        "two modalities lie apart.",
        "cameras": "Rank 1 and mAP for each camera of the query and each camera of the gallery, whatever the protocol "
        "says.",
        "error-rates": "What a threshold costs, for each pair of modalities. Curves end where fewer than 30 false "
        "matches stand behind a rate.",
        "attention": "Which places make two pictures similar: a query with its nearest picture, right and wrong.",
        "training": "The training as its log recorded it.",
        "samples": "Pictures that the method made while it learned.",
    },
    "zh": {
        "cmc": "CMC 曲线：前 k 个结果中出现正确匹配的比例。",
        "histograms": "图像对的相似度：两个分布重叠越少，阈值越能区分同一人与不同的人。",
        "projection": "特征的平面投影。组间距离意义不大；线段越长，该行人两种模态的特征相距越远。",
        "cameras": "各查询摄像头与图库摄像头之间的 Rank-1 与 mAP（不受协议限制）。",
        "error-rates": "各模态组合下阈值的代价。误匹配少于 30 次处不再绘制曲线。",
        "attention": "使两张图像相似的位置：查询图像与其最相似的图像，包括正确与错误的情况。",
        "training": "训练日志记录的训练过程。",
        "samples": "方法在训练过程中生成的图像。",
    },
}
TITLES = {  # of figures, for those who do not see them
    "en": {
        "cmc": "CMC curves",
        "histograms": "Histograms of similarities",
        "projection": "Embeddings in the plane",
        "cameras": "Camera by camera",
        "error-rates": "Error rates over thresholds",
        "attention": "Attention of pairs",
        "training": "Training curves",
        "samples": "Pictures made in training",
    },
    "zh": {
        "cmc": "CMC 曲线",
        "histograms": "相似度直方图",
        "projection": "特征的平面投影",
        "cameras": "摄像头之间的结果",
        "error-rates": "各阈值的错误率",
        "attention": "图像对的注意力",
        "training": "训练曲线",
        "samples": "训练中生成的图像",
    },
}


def figure_title(name: str, lang: Language) -> str:
    """The title of a figure, whose name may end in a protocol (cmc-sysu-all-single-shot)."""
    for kind, title in TITLES[lang].items():
        if name == kind or name.startswith(f"{kind}-"):
            return f"{title} {name.removeprefix(kind).lstrip('-')}".rstrip()
    return name

"""The words of stamps, of the rows without training and of notes below tables, in Chinese."""

from __future__ import annotations

import re
from collections.abc import Callable

from vireid.types import Language

WORDS = {
    # rows
    "chance": "随机",
    "HOG (no training)": "HOG（未训练）",
    "random vectors": "随机向量",
    # keys
    "all lines": "所有行",
    "backbone": "骨干网络",
    "center": "中心化",
    "checkpoint": "报告的轮次",
    "cmc": "CMC 计数",
    "commit": "提交",
    "continued": "继续训练",
    "data": "训练数据摘要",
    "dataset": "数据集",
    "device": "设备",
    "draw": "图库抽样",
    "embedder": "网络摘要",
    "embeddings": "特征",
    "flip": "镜像",
    "gallery": "图库",
    "gray": "灰度",
    "ignored": "不计",
    "images": "测试图像摘要",
    "infrared in training": "训练用红外图像",
    "init": "初始权重",
    "layer": "特征层",
    "method": "方法",
    "model": "模型",
    "partition": "划分",
    "pose": "姿态",
    "precision": "精度",
    "protocol": "协议",
    "queries": "查询",
    "refine": "特征修正",
    "refiner": "修正网络摘要",
    "refiner trained on": "修正网络的训练",
    "refiner trained on people of": "修正网络的训练身份",
    "rerank": "重排序",
    "run": "训练",
    "scores": "分数",
    "seed": "随机种子",
    "shots": "每人图像数",
    "similarity": "相似度",
    "size": "尺寸",
    "trained on": "训练数据",
    "trial": "试验",
    "vireid": "vireid 版本",
    "weights": "权重",
    # values
    "all": "全部",
    "all (10)": "全部（10）",
    "all equal": "全部相同",
    "all images of gallery, else test, of both modalities": "gallery（没有则为 test）的全部图像，两种模态",
    "all images of query, else test": "query（没有则为 test）的全部图像",
    "all infrared images of query, else test": "query（没有则为 test）的全部红外图像",
    "all infrared test images": "全部红外测试图像",
    "all infrared test images of one split": "一个划分的全部红外测试图像",
    "all query images": "全部 query 图像",
    "all visible images of query, else test": "query（没有则为 test）的全部可见光图像",
    "all visible test images": "全部可见光测试图像",
    "all visible test images of one split": "一个划分的全部可见光测试图像",
    "as released, not trained here": "发布的权重，未在此训练",
    "averaged": "与镜像取平均",
    "cosine": "余弦",
    "euclidean": "欧氏距离",
    "from scratch": "随机初始化",
    "held-out identities": "按留出的身份选择",
    "last epoch": "最后一轮",
    "made of visible pictures": "由可见光图像生成",
    "mean of each modality of these images (transductive)": "减去这些图像各模态的均值（直推式）",
    "none": "无",
    "none (all images)": "不抽样（全部图像）",
    "nothing": "无",
    "nothing (simultaneous twins stay)": "无（保留同时拍摄的图像）",
    "official (rand_perm_cam.mat)": "官方（rand_perm_cam.mat）",
    "other synthetic people": "其他合成行人",
    "over identities": "按身份",
    "over images": "按图像",
    "query camera 3: gallery camera 2": "查询为摄像头 3 时图库的摄像头 2",
    "same identity in the same camera": "同一摄像头中的同一身份",
    "same identity in the same camera; junk": "同一摄像头中的同一身份，以及无效图像",
    "the drawn infrared images (exchanged)": "抽取的红外图像（查询与图库互换）",
    "the query's own camera": "查询所在的摄像头",
    "the same person in the query's modality": "查询模态中的同一人",
    "the same picture": "同一图像",
    "same-pid-and-camera": "同一摄像头中的同一身份",
    "the start, not trained": "初始权重，未训练",
    "unknown": "未知",
    # notes
    "percent; mean ± standard deviation over the trials (n - 1)": "百分比；各次试验的均值 ± 标准差（n - 1）",
    "points of mAP; a query's average precision is its mean over the trials": "mAP 百分点；"
    "查询的平均精度为各次试验的均值",
    "under the same protocol": "同一协议",
}
TEST = r"([\d,]+) draws; p: two-sided randomization test over people, not corrected for several comparisons"
BOOTSTRAP = r"百分位自助法，抽样 \2 次；p：对行人的双侧随机化检验，未作多重比较校正"
PATTERNS = {  # of whole texts
    r"cameras ([\d, ]+)": r"摄像头 \1",
    r"cameras (\d+) and (\d+)": r"摄像头 \1 和 \2",
    r"agw \(Python seeds (.+)\)": r"agw（Python 种子 \1）",
    r"Python seeds (.+)": r"Python 种子 \1",
    r"between cameras (\d+) and (\d+)": r"摄像头 \1 与 \2 之间",
    r"same (\w+)": r"\1 相同",
    r"(\S+), (\d+) blocks": r"\1，前 \2 个块",
    r"(\d+) per camera": r"每个摄像头 \1 张",
    r"after epoch (.+)": r"第 \1 轮之后",
    r"test set \(not for publication\)": "按测试集选择（不可发表）",
    r"none \((.+)\)": r"无（\1）",
    r"([+-][\d.]+) to ([+-][\d.]+)": r"\1 至 \2",
    rf"(\d+)% interval: percentile bootstrap over people, {TEST}": rf"\1% 区间：对行人的{BOOTSTRAP}",
    rf"(\d+)% interval: percentile bootstrap over people and seeds, {TEST}": rf"\1% 区间：对行人与种子的{BOOTSTRAP}",
}


def said_in(lang: Language) -> Callable[[str], str]:
    """What puts such texts in a language."""
    return chinese if lang == "zh" else str


def chinese(text: str) -> str:
    """A word, a value or a note in Chinese; names, numbers and what is not known stay as they are.

    >>> chinese("layer"), chinese("cameras 3 and 6"), chinese("sysu/all/single-shot")
    ('特征层', '摄像头 3 和 6', 'sysu/all/single-shot')
    """
    if text in WORDS:
        return WORDS[text]
    for pattern, wording in PATTERNS.items():
        if re.fullmatch(pattern, text):
            return re.sub(pattern, wording, text)
    parts = text.split(", ")
    return "，".join(map(chinese, parts)) if len(parts) > 1 else text

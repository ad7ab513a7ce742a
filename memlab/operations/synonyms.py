"""Words that people use for what the declarations call otherwise: groups of words that stand for each other in discovery.

They are of the language and the field, not of single operations: what an operation alone means belongs in its docstring.
"""

from __future__ import annotations

GROUPS = tuple(
    tuple(line.split())
    for line in """
remember memorise memorize save record note keep store log capture write
forget erase delete remove discard drop clear purge wipe rid
find search look lookup query retrieve seek locate
show list display view browse page read return
get fetch read open
change update edit correct modify revise fix adjust rename move
create add make new open start begin register set insert
many bulk batch import load several multiple
export download backup dump
latest last recent newest lately
history past earlier previous old older
date time when temporal moment day
similar alike related near close resembling like
duplicate near-duplicate redundant repeated same
merge combine join unite fuse deduplicate
keyword word term exact literal lexical bm25
meaning semantic vector embedding cosine similarity
hybrid combined both mix
typing type prefix autocomplete complete suggest suggestion instant
event experience episode observation conversation message turn happened occurred episodic
fact knowledge belief concept principle statement semantic
tag label topic tagged
triple subject predicate object
procedure routine workflow skill recipe habit instruction instructions playbook how-to procedural
step action
extract mine learn discover derive
execute run perform apply carry
outcome result success succeed failure fail failed worked ended
effectiveness reliable success ratio rate
task todo to-do chore job action errand
pending open due next outstanding undone
complete done finish finished mark tick close
deadline due overdue
goal aim objective target
progress far advance growth
remind reminder trigger alarm notify alert mind
fire due check
priority urgent urgency important pressing
entity node person people thing vertex somebody something
relationship relation edge link connection relate connect connected tie
path route chain hops connected between
neighborhood neighbourhood neighbour neighbor around surrounding
community group cluster cliques belong
central centrality pagerank important influential betweenness
graph network
health healthy well condition
expertise expert know known
gap missing unknown lack little
load busy workload overload
quality good sure accurate trust
attention focus focused
statistics stats totals count number how-many figures numbers metrics
recommendation recommendations advice advise suggest improve
consolidate consolidation summarise summarize distil distill compress condense digest
pattern regularity occur together
status state waiting left remaining
strategy way method configure configuration choose setting settings
prompt sources cite language model llm synthesis
passage context answer retrieve rag
rerank reranking reorder second
diverse diversity varied different mmr
expand expansion broaden synonyms
feedback reflective iterate iterations refine again
operation tool function command method
layer kind
session user tenant
""".strip().splitlines()
)

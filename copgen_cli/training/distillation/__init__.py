"""Progressive distillation in one leap: a student learns to go in one network call where its teacher goes in several
(arXiv:2202.00512), the teacher's guidance included (arXiv:2210.03142).

`walk` is the teacher's way through each interval of the student's grid as numbers, `loss` what training makes smaller.
"""

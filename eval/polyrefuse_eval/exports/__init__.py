"""Results of runs in the forms of others: the Hub's evaluation results, Every Eval Ever"""

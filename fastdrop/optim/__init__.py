"""Optimisers that follow the masks: a step does not change dropped weights.

Each step is one pass over the weights between kept units, which reads, updates and writes them
once, together with their velocities, moments and counts. Those of a dropped unit keep their bits;
neither momentum nor weight decay changes them. With masks for rows or groups of rows, a unit is
kept when any row of the batch keeps it.

References
----------
.. [1] N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
   JMLR 15 (2014), section 5.1 (max-norm).
.. [2] I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and
   momentum in deep learning", ICML 2013, section 2.
.. [3] D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
.. [4] I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.
.. [5] S. J. Reddi, S. Kale, S. Kumar, "On the convergence of Adam and beyond", ICLR 2018,
   algorithm 2.
"""

from fastdrop.optim.adam import Adam, AdamW
from fastdrop.optim.groups import Group
from fastdrop.optim.rmsprop import RMSprop
from fastdrop.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Group", "RMSprop"]

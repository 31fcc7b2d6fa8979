"""Every object, built once: the engines, the rules over them, and the one application.

Only this package names concrete engines.
"""

from cypd.composition.registry import registry as registry

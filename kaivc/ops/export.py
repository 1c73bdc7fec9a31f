"""x"""


class Exported: ...

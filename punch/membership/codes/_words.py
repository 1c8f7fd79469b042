"""The words of short codes: 256, of four to eight letters, that differ in the first three."""

from __future__ import annotations

_WORDS = """
acorn agenda airport album alley amber anchor apple april arctic armor artist aspen atlas
autumn avenue bacon badger balcony banjo barrel basil bazaar beacon bedrock bishop blanket
blossom bonfire border bottle bracket brisk bronze bucket bundle butter cabin cactus camel
candle carbon castle cedar cello chapel cherry chimney cinema circus clover cobalt coffee
comet copper coral cotton cradle cricket crystal cupboard curtain cypress daisy damask
dancer daylight delta denim desert diesel dinner dolphin donkey dragon drummer dusty eagle
early easel echo eclipse effort elbow elder ember emerald engine envelope equal errand
estate evening exhibit fabric falcon farmer feather fennel ferry fiddle figure finger
flannel flute forest fossil fountain fridge frozen funnel gadget galaxy garden gentle geyser
ginger glacier glider goblet golden gossip granite guitar gypsum habit hammer harbor hazel
hermit hickory hidden hollow honey hotel humble hundred hybrid iceberg igloo indigo insect
island ivory jacket jasmine jelly jersey jigsaw jockey journey jungle kayak kernel kettle
kitchen koala ladder lagoon lantern lavender lemon lentil liberty lilac linen lizard lobster
lotus lumber lunch magnet mango marble meadow melon mentor meteor midnight mirror mitten
monsoon mosaic muffin museum napkin nectar needle nickel nimble noodle nugget nutmeg oasis
obelisk ocean october olive onion opera orange orchid osprey oxygen oyster paddle panda
parrot pebble pelican pepper piano pickle pilot plaza pocket polka prairie pumpkin puzzle
quarry quilt rabbit radish raven ribbon river robin rocket rubber saddle saffron salmon
satin scarlet shadow shelter silver sketch sonnet spider spring squirrel stable summer
tablet tango temple thunder timber toffee tulip turtle umbrella velvet walnut
"""

WORDS: tuple[str, ...] = tuple(_WORDS.split())

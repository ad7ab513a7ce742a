"""What the people of the generated conversations are called, do, own and say."""

from __future__ import annotations


def _parts(text: str) -> list[str]:
    """Return what stands between the bars."""
    return [" ".join(part.split()) for part in text.split("|")]


# fmt: off
NAMES = """Ana Bruno Chloe Dmitri Elif Farid Greta Hugo Ines Jonas Kavya Liam Mara Nils Olga Pablo Quinn Rosa Samir Tomas
    Uma Vera Wanda Yusuf""".split()
THINGS = {
    "sailing": "kayak dinghy anchor compass lifejacket paddle rope sail rudder chart winch buoy".split(),
    "cooking": "saucepan whisk casserole recipe oven cleaver griddle apron teapot kettle mortar colander".split(),
    "music": "violin cello trumpet keyboard metronome guitar drum clarinet amplifier songbook flute microphone".split(),
    "garden": "rosebush trowel greenhouse hedge compost wheelbarrow tulip lawnmower orchard fountain trellis seedling".split(),
    "travel": "suitcase passport map ticket tent rucksack guidebook camera sleeper ferry bicycle visa".split(),
    "work": "contract invoice proposal prototype budget dashboard report server keynote survey roadmap audit".split(),
    "health": "prescription bandage checkup treadmill vitamin thermometer massage crutch inhaler dentist test yoga-mat".split(),
    "family": "cradle album birthday wedding puppy heirloom quilt treehouse reunion nursery kitten locket".split(),
    "reading": "novel memoir atlas dictionary bookshelf manuscript poem biography library-card comic magazine anthology".split(),
    "house": "sofa curtain bookcase radiator doorbell carpet mirror lamp staircase boiler window mattress".split(),
    "sport": "racket helmet skateboard football surfboard medal stopwatch snowboard jersey whistle javelin trophy".split(),
    "painting": "easel canvas watercolour sketchbook palette charcoal mural portrait fresco brush varnish frame".split(),
}
LOOKS = """blue crimson wooden silver antique borrowed tiny enormous striped golden handmade broken foldable faded polished
    second-hand velvet green painted spotless rusty brand-new crooked transparent""".split()
# past, then the bare verb for the question
DEEDS = [
    ("bought", "buy"), ("sold", "sell"), ("lost", "lose"), ("found", "find"), ("repaired", "repair"), ("painted", "paint"),
    ("borrowed", "borrow"), ("returned", "return"), ("photographed", "photograph"), ("cleaned", "clean"),
    ("wrapped", "wrap"), ("ordered", "order"), ("replaced", "replace"), ("tried out", "try out"), ("gave away", "give away"),
    ("picked up", "pick up"),
]
PLACES = _parts(
    """
    the harbour market|the old station|Lake Garda|the community centre|Porto|the flea market|a shop in Lisbon|
    the north pier|grandmother's attic|the town library|Oslo|the botanical garden|a workshop in Graz|
    the school yard|the mountain hut|Kyoto|the riverside café|the hardware store|Galway|the museum shop|
    the new office|the campsite|Valencia|the corner bakery|the ferry terminal|Montreal|the sports hall|
    the night train|a barn near Bath|the village fair|Tbilisi|the rooftop terrace|the music school|
    the hospital lobby|Marrakesh|the swimming pool|the bus depot|the vineyard|Reykjavik|the lighthouse"""
)
WHEN = _parts(
    """
    yesterday|last weekend|this morning|on Tuesday|two days ago|right after lunch|before the rain came|
    during the holidays|late at night|on the way home|while waiting for the bus|just before closing time"""
)
REMARKS = _parts(
    """
    my sister came along|nobody believed me at first|it took almost three hours|the neighbours helped a lot|
    it cost far too much|I have been smiling ever since|we had to carry it together|
    the children would not stop laughing|I nearly missed the last train|my back still hurts|
    it was raining the whole time|I wrote it down at once|an old friend recognised me there|
    I should have done it years ago|we celebrated with cake|the phone died halfway through"""
)
TALK = _parts(
    """How have you been since we met at {place}? All I did {when} was about {topic}, and {remark}.|
    That sounds wonderful, tell me more about {place}! Here {remark}, {when}, with the {topic} people.|
    I was thinking about {place} {when} and could not sleep; {remark}.|
    Honestly, the {topic} plans for {place} are a bit much for me; {when} {remark}.|
    Do you remember {place}? We should go back one day, for {topic}. {when}, {remark}.|
    Thanks for listening {when}, it helped me a lot. Next time we talk about {topic}, at {place}, and {remark}.|
    My week was full of {topic}: {when} at {place}, and {remark}.|
    Let us talk about something else than {topic}, shall we? {when} I passed {place}, and {remark}."""
)
# fmt: on

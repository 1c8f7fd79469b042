// What stands before the code of the page: what each program is asked, and how it says what came.
const QUESTION = "Why is the sky blue?";
// A mock calls a tool that the last message names.
const USE_ADD = "Use add.";
const NAME_A_PERSON = "Answer with the JSON of a Person, who has a name and an age.";
const whole = { type: "integer" };
const NUMBERS = { type: "object", properties: { a: whole, b: whole }, required: ["a", "b"] };
const PERSON = {
  type: "object",
  properties: { name: { type: "string" }, age: whole },
  required: ["name", "age"],
  additionalProperties: false,
};

// Ask what the command line names, and print what came, one line for each.
async function say(asked) {
  for (const kind of process.argv.slice(2)) {
    console.log(JSON.stringify({ kind, got: await asked[kind]() }));
  }
}

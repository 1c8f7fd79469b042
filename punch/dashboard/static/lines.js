// The lines that connect a program with this gateway. Names of models come from peers, and the
// address from the browser's bar: each goes in by the quoting rules of the language it stands in.

/** What stands where a key goes. A secret is never put into the page. */
export const PLACEHOLDER = "YOUR_KEY";

const QUESTION = "Why is the sky blue?";

/** A word of a shell that means itself; zsh reads more into the first letter. @param {string} text */
export function shell(text) {
  return /^[\w/][\w./:@%+,=-]*$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** A string of JSON, which is one of Python and of TOML, too. @param {string} text */
const quoted = (text) => JSON.stringify(text);

/**
 * Whether a name can be pasted: nothing that a terminal acts upon, and no option of a program.
 * @param {string} name
 */
export const isSafe = (name) => /^[^-]/.test(name) && !/[\p{C}\p{Zl}\p{Zp}]/u.test(name);

/**
 * @typedef {object} Block
 * @property {string} where where the text goes
 * @property {string} text
 * @typedef {{id: string, name: string, blocks: Block[], hint: string}} Program
 */

/**
 * What to set in each program.
 * @param {string} address of the gateway, without a slash at its end
 * @param {string} model
 * @returns {Program[]}
 */
export function programsFor(address, model) {
  const python = "in a Python program";
  const terminal = "in a terminal";
  const messages = `[{"role": "user", "content": ${quoted(QUESTION)}}]`;
  return [
    {
      id: "curl",
      name: "curl",
      blocks: [
        {
          where: terminal,
          text: [
            `curl -s ${shell(`${address}/v1/chat/completions`)} \\`,
            `  -H 'Content-Type: application/json' -H 'Authorization: Bearer ${PLACEHOLDER}' \\`,
            `  -d ${shell(JSON.stringify({ model, messages: [{ role: "user", content: QUESTION }] }))}`,
          ].join("\n"),
        },
      ],
      hint: "",
    },
    {
      id: "openai",
      name: "OpenAI's Python client",
      blocks: [
        {
          where: python,
          text: [
            "from openai import OpenAI",
            "",
            `client = OpenAI(base_url=${quoted(`${address}/v1`)}, api_key=${quoted(PLACEHOLDER)})`,
            "answer = client.chat.completions.create(",
            `    model=${quoted(model)}, messages=${messages}`,
            ")",
            "print(answer.choices[0].message.content)",
          ].join("\n"),
        },
      ],
      hint: "",
    },
    {
      id: "anthropic",
      name: "Anthropic's Python client",
      blocks: [
        {
          where: python,
          text: [
            "from anthropic import Anthropic",
            "",
            `client = Anthropic(base_url=${quoted(address)}, api_key=${quoted(PLACEHOLDER)})`,
            "answer = client.messages.create(",
            `    model=${quoted(model)}, max_tokens=256, messages=${messages}`,
            ")",
            "print(answer.content[0].text)",
          ].join("\n"),
        },
      ],
      hint: "",
    },
    {
      id: "ollama",
      name: "Ollama",
      blocks: [
        {
          where: python,
          text: [
            "from ollama import Client",
            "",
            `client = Client(host=${quoted(address)}, headers={"Authorization": ${quoted(`Bearer ${PLACEHOLDER}`)}})`,
            `print(client.chat(${quoted(model)}, messages=${messages}).message.content)`,
          ].join("\n"),
        },
        { where: `${terminal}, where no key is needed`, text: `OLLAMA_HOST=${shell(address)} ollama run ${shell(model)}` },
      ],
      hint: "",
    },
    {
      id: "claude-code",
      name: "Claude Code",
      blocks: [
        {
          where: terminal,
          text: [
            `export ANTHROPIC_BASE_URL=${shell(address)} ANTHROPIC_AUTH_TOKEN=${PLACEHOLDER} ANTHROPIC_MODEL=${shell(model)}`,
            "export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 CLAUDE_CODE_MAX_CONTEXT_TOKENS=32768",
            "claude",
          ].join("\n"),
        },
      ],
      hint: "Its prompt is some 10,000 tokens: give the listeners more than the usual 4096 (--context).",
    },
    {
      id: "codex",
      name: "Codex",
      blocks: [
        {
          where: "in ~/.codex/config.toml",
          text: [
            `model = ${quoted(model)}`,
            'model_provider = "punch"',
            'web_search = "disabled"',
            "",
            "[model_providers.punch]",
            'name = "punch"',
            `base_url = ${quoted(`${address}/v1`)}`,
            'wire_api = "responses"',
            'env_key = "PUNCH_KEY"',
          ].join("\n"),
        },
        { where: terminal, text: `export PUNCH_KEY=${PLACEHOLDER}\ncodex` },
      ],
      hint: "Its prompt is some 10,000 tokens: give the listeners more than the usual 4096 (--context).",
    },
    {
      id: "pi",
      name: "pi",
      blocks: [
        { where: "in ~/.pi/agent/models.json", text: piModels(address, model) },
        { where: terminal, text: `pi --provider punch --model ${shell(model)}` },
      ],
      hint: "It keeps 16,384 tokens of contextWindow free: give the listeners more than the usual 4096 (--context).",
    },
  ];
}

function piModels(address, model) {
  const punch = {
    baseUrl: `${address}/v1`,
    api: "openai-completions",
    apiKey: PLACEHOLDER,
    compat: { supportsDeveloperRole: false, supportsReasoningEffort: false, maxTokensField: "max_tokens" },
    models: [{ id: model, contextWindow: 32768, maxTokens: 16384 }],
  };
  return JSON.stringify({ providers: { punch } }, null, 2);
}

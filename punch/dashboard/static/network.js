// The network: who is connected, how a machine is added, and who is a member.

import { h, replace } from "./dom.js";
import { inviteSection } from "./invite.js";
import { membersSection } from "./members.js";
import { newcomersSection } from "./newcomers.js";
import { polled } from "./poll.js";
import { topologySection } from "./topology.js";

// How often they are looked at again, in milliseconds.
const EVERY = 3000;

/** @param {Element} root @param {import("./store.js").Store} store @param {{locked: () => void}} tell */
export function networkView(root, store, tell) {
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const far = h("p", { class: "problem", role: "alert", hidden: true });
  const newcomers = newcomersSection(store, tell, "network");
  const topology = topologySection();
  const changed = () => void members.again();
  const invite = inviteSection(store, { ...tell, changed });
  const list = membersSection({ ...tell, changed });
  replace(root, h("header", { class: "view-head" }, h("h1", { id: "title-network", tabindex: "-1" }, "Network")), newcomers.node, far, topology.node, problem, invite.node, list.node);

  const members = polled("/api/dashboard/members", {
    every: EVERY,
    problem,
    what: "The machines cannot be shown",
    tell,
    draw(data) {
      invite.draw(data);
      list.draw(data);
    },
  });
  const links = polled("/api/dashboard/topology", { every: EVERY, problem: far, what: "The connections cannot be shown", tell, draw: topology.draw });

  return {
    update() {},
    tick() {
      newcomers.tick();
      members.refresh();
      links.refresh();
      topology.resized();
    },
    shown() {
      members.again();
      links.again();
    },
  };
}

"""Words and domains that tell what kind of mailbox an address is. Hand-made from what providers say of themselves."""

from __future__ import annotations

from typing import Final

_FREE_PROVIDERS: Final = """
gmail.com googlemail.com outlook.com outlook.de outlook.fr hotmail.com hotmail.co.uk hotmail.de hotmail.fr hotmail.it hotmail.es
live.com live.co.uk live.de live.fr msn.com yahoo.com yahoo.co.uk yahoo.de yahoo.fr yahoo.it yahoo.es yahoo.ca yahoo.co.jp
yahoo.co.in yahoo.com.br yahoo.com.au ymail.com rocketmail.com aol.com icloud.com me.com mac.com gmx.de gmx.net gmx.com gmx.at
gmx.ch web.de freenet.de t-online.de proton.me protonmail.com pm.me tutanota.com tuta.io mail.com email.com usa.com zoho.com
fastmail.com hey.com yandex.com yandex.ru ya.ru mail.ru bk.ru inbox.ru list.ru rambler.ru qq.com 163.com 126.com sina.com
sohu.com naver.com daum.net hanmail.net orange.fr free.fr laposte.net sfr.fr wanadoo.fr libero.it virgilio.it tiscali.it alice.it
bluewin.ch seznam.cz centrum.cz wp.pl o2.pl onet.pl interia.pl gazeta.pl ukr.net i.ua abv.bg uol.com.br bol.com.br terra.com.br
btinternet.com sky.com comcast.net verizon.net att.net rediffmail.com posteo.de mailbox.org
"""
FREE_PROVIDERS: Final = frozenset(_FREE_PROVIDERS.split())
"""Where anyone gets a mailbox without being a customer's company."""

_ROLE_ACCOUNTS: Final = """
abuse accounting accounts admin administrator billing careers compliance contact customerservice dev devnull enquiries feedback
finance ftp hello help helpdesk hostmaster hr info information inquiries invoice invoices it jobs legal mail mailer-daemon marketing
media news newsletter no-reply noc noreply office orders partners postmaster press privacy purchasing recruiting registrar
root sales security service shop spam staff subscribe support sysadmin team tech undisclosed-recipients unsubscribe usenet
webmaster welcome www
"""
ROLE_ACCOUNTS: Final = frozenset(_ROLE_ACCOUNTS.split())
"""Local parts that name a function instead of a person (among them the names of RFC 2142)."""
